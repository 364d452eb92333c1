"""Addresses and the networks that they are in."""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from app.core.setting_lists import split_list

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def read_networks(text: str) -> list[Network]:
    """Return the networks in a setting.

    Raises :class:`ValueError` that quotes nothing: who knows what was pasted there.
    """
    try:
        return [ip_network(network) for network in split_list(text)]
    except ValueError:
        raise ValueError(
            "must be addresses or networks without bits behind the mask: 10.0.0.5,192.168.1.0/24"
        ) from None


def read_address(text: str) -> Address:
    """Return the address, an IPv4 address where it is one that a socket for both kinds shows.

    Raises :class:`ValueError`.
    """
    return unwrap(ip_address(text))


def unwrap(address: Address) -> Address:
    """Return the IPv4 address in an IPv6 one that wraps it (``::ffff:…``), else the address."""
    return getattr(address, "ipv4_mapped", None) or address


def is_in_any(address: Address, networks: Iterable[Network]) -> bool:
    """Whether a network has the address; one of another version has it not."""
    return any(address in network for network in networks)
