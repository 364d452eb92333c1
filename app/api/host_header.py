"""The ``Host`` of a request, read strictly: ``uri-host [ ":" port ]`` (RFC 9110, 7.2)."""

import re
from ipaddress import ip_address
from typing import NamedTuple

from starlette.types import Scope

# An IPv6 address in brackets, or labels; names of containers have underscores. A port may be empty.
_SHAPE = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
)

# A name has 253 characters at most; a port, a colon and a last dot come on top.
_LONGEST = 260

_LARGEST_PORT = 65_535

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Host(NamedTuple):
    """A host and its port, if one is named: an address, or a name in lower case without last dot.

    IPv6 addresses are without brackets, in their shortest form.
    """

    name: str
    port: int | None
    is_address: bool

    def at(self, scheme: str) -> tuple[str, str, int | None]:
        """The origin that this is under a scheme, whether its port is named or goes without."""
        port = _DEFAULT_PORTS.get(scheme) if self.port is None else self.port
        return scheme, self.name, port


def find_host(scope: Scope) -> bytes:
    """The request's Host as it came; empty where there is none, or more than one."""
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"host":
            if found is not None:
                return b""
            found = value
    return found or b""


def parse_host(text: str) -> Host | None:
    """The host in a header's value, ``None`` for what is none."""
    match = _SHAPE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > _LARGEST_PORT:
        return None
    try:
        return Host(str(ip_address(match["literal"] or match["name"])), port, is_address=True)
    except ValueError:
        pass
    return None if match["literal"] else Host(match["name"].lower(), port, is_address=False)


def parse_origin(text: str) -> tuple[str, str, int | None] | None:
    """The origin in an ``Origin`` header as :meth:`Host.at` has it, ``None`` for an opaque one."""
    scheme, _, rest = text.partition("://")
    host = parse_host(rest)
    return None if host is None else host.at(scheme)
