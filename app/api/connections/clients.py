"""The clients that connections are counted for: the machine or the network at its other end."""

from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv6Address

from app.core.networks import Network, is_in_any, read_address

# What a provider gives to a single customer, who may use all of its addresses.
_IPV6_PREFIX_BITS = 64
_IPV6_HOST_BITS = 128 - _IPV6_PREFIX_BITS


def find_client(host: str, trusted: Sequence[Network]) -> str | int | None:
    """Return the name that connections from an address are counted under; ``None`` if not at all.

    ``host``: empty for a Unix socket. ``trusted``: who speaks for many.
    """
    if not host:
        return None
    address = read_address(host)
    if address.is_loopback or is_in_any(address, trusted):
        return None
    if isinstance(address, IPv6Address):
        return int(address) >> _IPV6_HOST_BITS
    return str(address)


class ClientCounter:
    """The number of connections of each client. ``most``: of one, 0 for any number."""

    def __init__(self, most: int, trusted: Sequence[Network]) -> None:
        self._most = most
        self._trusted = trusted
        self._counts: Counter[str | int] = Counter()

    def find(self, host: str) -> str | int | None:
        """Return the client that a connection from there counts for, if there is one."""
        return find_client(host, self._trusted) if self._most else None

    def enter(self, client: str | int) -> bool:
        """Count one more, unless there are as many as allowed."""
        if self._counts[client] >= self._most:
            return False
        self._counts[client] += 1
        return True

    def leave(self, client: str | int) -> None:
        """Count one less."""
        self._counts[client] -= 1
        if not self._counts[client]:
            del self._counts[client]
