"""Who a connection is counted for: the machine or the network at its other end."""

from collections import Counter
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

# What a provider gives to a single customer, who may use all of its addresses.
_IPV6_PREFIX_BITS = 64
_IPV6_HOST_BITS = 128 - _IPV6_PREFIX_BITS

Network = IPv4Network | IPv6Network


def find_client(host: str, trusted: Sequence[Network]) -> str | int | None:
    """What connections from an address are counted under; ``None`` where they are not.

    ``host``: empty for a Unix socket. ``trusted``: who speaks for many.
    """
    if not host:
        return None
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_loopback or any(address in network for network in trusted):
        return None
    if isinstance(address, IPv6Address):
        return int(address) >> _IPV6_HOST_BITS
    return str(address)


class ClientCounter:
    """How many connections each client has. ``most``: that one may have, 0 for any number."""

    def __init__(self, most: int, trusted: Sequence[Network]) -> None:
        self._most = most
        self._trusted = trusted
        self._counts: Counter[str | int] = Counter()

    def find(self, host: str) -> str | int | None:
        """Who a connection from there counts for, if for anybody."""
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
