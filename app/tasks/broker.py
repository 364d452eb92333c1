"""A repair of kombu's Redis transport (5.7): a slot whose acknowledgement failed is free again.

kombu counts messages that were delivered and not acknowledged, and takes no more while that count
has reached the prefetch limit. When Redis goes away while every child is busy, each
acknowledgement fails, kombu logs that and keeps counting the message: the limit is reached for
good, nothing is read any more, and so the lost connection is never even noticed. A doorbell that
stays unacknowledged in Redis is harmless; a worker that never listens again is not.
"""

from kombu.transport import redis as redis_transport
from kombu.transport.virtual import QoS


class ForgivingQoS(redis_transport.QoS):
    """Forgets a delivery whether or not Redis could be told."""

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            QoS.ack(self, delivery_tag)
            raise


def install_broker_repair() -> None:
    """Make kombu's Redis channels use it: they take the class from their attribute ``QoS``."""
    redis_transport.Channel.QoS = ForgivingQoS
