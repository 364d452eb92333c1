"""For whom a reverse proxy speaks, where TRUSTED_PROXIES names that proxy.

Anybody can send these headers. They count from the senders in the settings, and of what one passes
on, only as far as one trusted proxy has it from the next. An application without such senders is
not wrapped at all.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.forwarded_header import (
    UNKNOWN,
    Hop,
    read_address,
    read_hops,
    read_scheme,
    split,
)
from app.api.host_header import find_host, parse_host
from app.core import networks
from app.core.config import TrustedSettings

_FORWARDED = b"forwarded"
_FOR = b"x-forwarded-for"
_PROTO = b"x-forwarded-proto"
_HOST = b"x-forwarded-host"
_PORT = b"x-forwarded-port"
_PREFIX = b"x-forwarded-prefix"
_NAMES = frozenset({_FORWARDED, _FOR, _PROTO, _HOST, _PORT, _PREFIX})

# Nobody has more proxies in a row; a client may write any number.
_MOST_HOPS = 16

# Segments of plain characters: a prefix goes into links, where `//evil.example` is another host.
_PREFIX_SHAPE = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_LONGEST_PREFIX = 256

_PORT_SHAPE = re.compile(r"[1-9][0-9]{0,4}")

_ADDRESSES_REMEMBERED = 1024

Headers = dict[bytes, list[str]]


class Account(NamedTuple):
    """The part of a request's headers that is believed; empty where nothing is."""

    address: str
    scheme: str
    host: str
    port: str
    prefix: str


def follow_proxies(app: ASGIApp, settings: TrustedSettings) -> ASGIApp:
    """The application behind the proxies in the settings; itself where there are none."""
    if settings.list_proxies() or settings.trusts_unix_sockets():
        return ForwardingMiddleware(app, settings)
    return app


class ForwardingMiddleware:
    """Gives a request the address, scheme, host and prefix that it had at the first trusted proxy.

    ``client`` is ``None`` where that proxy does not say whom it speaks for.
    """

    def __init__(self, app: ASGIApp, settings: TrustedSettings) -> None:
        self._app = app
        self._networks = settings.list_proxies()
        self._trusts_unix_sockets = settings.trusts_unix_sockets()
        self._is_proxy = lru_cache(_ADDRESSES_REMEMBERED)(self._look_up)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_sender_trusted(scope):
            headers: Headers = {}
            for name, value in scope["headers"]:
                if name in _NAMES:
                    headers.setdefault(name, []).append(value.decode("latin-1").strip())
            if headers:
                _apply(self._read(headers), scope)
        await self._app(scope, receive, send)

    def _is_sender_trusted(self, scope: Scope) -> bool:
        if scope["client"]:
            return self._is_proxy(scope["client"][0])
        # The other end of a Unix socket has no address. Nor has a client that has just gone, so
        # this looks at the own end: only that of a Unix socket has no port.
        server = scope.get("server")
        return self._trusts_unix_sockets and server is not None and server[1] is None

    def _look_up(self, text: str) -> bool:
        try:
            return networks.is_in_any(networks.read_address(text), self._networks)
        except ValueError:
            return False

    def _read(self, headers: Headers) -> Account:
        standard = self._follow(read_hops(headers.get(_FORWARDED, [])))
        addresses = reversed(split(headers.get(_FOR, [])))
        customary = self._follow(Hop(read_address(text)) for text in addresses)
        # The sender is believed even where it does not say for whom it speaks.
        believed = len(customary) or 1

        def pick(name: bytes) -> list[str]:
            return split(headers.get(name, []))[-believed:]

        return Account(
            address=_agree(_last(standard, "address"), _last(customary, "address"), UNKNOWN),
            scheme=_agree(_last(standard, "scheme"), read_scheme(_first(pick(_PROTO)))),
            host=_agree(_last(standard, "host"), _first(pick(_HOST))),
            port=_first(pick(_PORT)),
            prefix="".join(value.rstrip("/") for value in pick(_PREFIX)),
        )

    def _follow(self, hops: Iterable[Hop]) -> list[Hop]:
        """The hops that trusted proxies vouch for, nearest first; the last speaks for no proxy."""
        believed = []
        for hop in islice(hops, _MOST_HOPS):
            believed.append(hop)
            if not self._is_proxy(hop.address):
                break
        return believed


def _first(values: list[str]) -> str:
    return values[0] if values else ""


def _last(hops: list[Hop], field: str) -> str:
    """Return a field of the farthest hop that has it."""
    said = [value for hop in hops if (value := getattr(hop, field))]
    return said[-1] if said else ""


def _agree(one: str, other: str, otherwise: str = "") -> str:
    """Return the one that is there, ``otherwise`` for two that differ.

    A proxy that writes one kind of header may pass on the other as a client wrote it.
    """
    if one and other and one != other:
        return otherwise
    return one or other


def _apply(account: Account, scope: Scope) -> None:
    if account.address:
        known = account.address != UNKNOWN
        scope["client"] = (account.address, 0) if known else None
    if account.scheme:
        scope["scheme"] = account.scheme
    # Where there is no one Host to take the place of, the request is refused for that.
    if own := find_host(scope):
        host = _with_port(account.host or own.decode("latin-1"), account.port).encode("latin-1")
        scope["headers"] = [
            (name, host if name == b"host" else value) for name, value in scope["headers"]
        ]
    if len(account.prefix) <= _LONGEST_PREFIX and _PREFIX_SHAPE.fullmatch(account.prefix):
        # As ASGI has it: the path begins with the root path.
        scope["root_path"] = account.prefix + scope.get("root_path", "")
        scope["path"] = account.prefix + scope["path"]
        scope["raw_path"] = account.prefix.encode() + scope["raw_path"]


def _with_port(host: str, port: str) -> str:
    parsed = parse_host(host)
    if parsed is None or parsed.port is not None or not _PORT_SHAPE.fullmatch(port):
        return host
    return f"{host.removesuffix(':')}:{port}"
