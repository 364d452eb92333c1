"""Reading settings that are lists: separated by commas, with blanks as people like."""

from ipaddress import IPv4Network, IPv6Network, ip_network


def split_list(text: str) -> list[str]:
    """The parts of a list, without blanks around them and without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_networks(text: str) -> list[IPv4Network | IPv6Network]:
    """The networks in a list.

    Raises :class:`ValueError` that quotes nothing: who knows what was pasted there.
    """
    try:
        return [ip_network(network) for network in split_list(text)]
    except ValueError:
        raise ValueError(
            "must be addresses or networks without bits behind the mask: 10.0.0.5,192.168.1.0/24"
        ) from None
