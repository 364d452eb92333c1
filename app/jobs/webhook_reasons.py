"""What /health has to say of webhooks."""

from typing import Any

from app.core import keys
from app.core.clock import format_milliseconds

LOOKS = 3
"""How many answers :func:`add_look` adds."""


def add_look(pipeline: Any) -> None:
    """Ask for what :func:`find_reasons` needs."""
    pipeline.zcard(keys.WEBHOOKS)
    pipeline.pubsub_numsub(keys.WEBHOOK_BELL)
    pipeline.get(keys.WEBHOOK_LOSS)


def find_reasons(answers: list[Any]) -> list[str]:
    """What needs attention."""
    registered, senders, lost_since = answers
    reasons = []
    # Each sender listens to the bell.
    if registered and not senders[0][1]:
        reasons.append("no webhook sender: deliveries wait until one starts")
    if lost_since:
        since = format_milliseconds(int(lost_since))
        reasons.append(
            f"webhooks missed events after {since}: no sender ran for too long, "
            "or QUEUE_HISTORY_LENGTH is too small"
        )
    return reasons
