"""The headers by which proxies say whom they speak for, ``Forwarded`` (RFC 7239) before all."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from app.core import networks

UNKNOWN = "unknown"
"""The address of a sender whom a proxy does not name (RFC 7239, 6.2 and 6.3)."""

# One pair, and what follows it. Brackets and colons must be quoted, but are often not.
_PAIR = re.compile(
    r"[ \t]*(?P<name>[\w!#$%&'*+.^`|~-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s",;]+))[ \t]*(?P<end>[;,]|$)',
    re.ASCII,
)

_NODE = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<address>[0-9.]+))(?::[\w.-]+)?", re.ASCII
)

_SCHEMES = ("http", "https")


class Hop(NamedTuple):
    """A proxy's account of the request that it got; empty where it says nothing."""

    address: str = ""
    scheme: str = ""
    host: str = ""


def read_address(text: str) -> str:
    """The address in a node's name, without port; ``UNKNOWN`` where it is hidden or makes no sense.

    IPv6 addresses should be in brackets and often are not. Those that only wrap an IPv4 address are
    that.
    """
    match = _NODE.fullmatch(text)
    try:
        text = (match["literal"] or match["address"]) if match else text
        return str(networks.read_address(text))
    except ValueError:
        return UNKNOWN


def read_scheme(text: str) -> str:
    """``http`` or ``https``; empty for all else."""
    scheme = text.lower()
    return scheme if scheme in _SCHEMES else ""


def split(lines: list[str]) -> list[str]:
    """The values of a header that is a list, those of all its lines."""
    return [value.strip() for line in lines for value in line.split(",") if value.strip()]


def read_hops(lines: list[str]) -> Iterator[Hop]:
    """The elements of ``Forwarded``, the nearest proxy's first.

    Each proxy adds its own behind those of others, so what can't be read hides what is before it.
    """
    for line in reversed(lines):
        elements = _read_elements(line)
        if elements is None:
            yield Hop(UNKNOWN)
            return
        for pairs in reversed(elements):
            yield Hop(
                read_address(pairs["for"]) if "for" in pairs else "",
                read_scheme(pairs.get("proto", "")),
                pairs.get("host", ""),
            )


def _read_elements(line: str) -> list[dict[str, str]] | None:
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(line):
        match = _PAIR.match(line, position)
        if match is None:
            return None
        value = match["bare"]
        if value is None:
            value = re.sub(r"\\(.)", r"\1", match["quoted"])
        if match["name"].lower() in elements[-1]:
            return None
        elements[-1][match["name"].lower()] = value
        if match["end"] == ",":
            elements.append({})
        position = match.end()
    return elements
