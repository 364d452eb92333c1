"""Connections to receivers: made to the very address that was checked.

A name is resolved here, its addresses are judged, and the connection goes to one that passed. A
DNS answer that changes between the check and the connection (rebinding) has nothing to change. The
URL keeps the name, so the Host header, SNI and the certificate's check are about that.
"""

import contextlib
import math
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import httpcore2
import httpx2

from app.webhooks.addresses import AddressGuard
from app.webhooks.sending.interim_answers import CountingStream
from app.webhooks.sending.names import Resolver

# Receivers that get many events keep their connections; longer than this, half of them hang up.
_KEEPALIVE_SECONDS = 5.0

# So long an address may say nothing while there is another to try: time for two packets to be lost.
_LONGEST_TRY_SECONDS = 4.0


class NameNotResolvedError(Exception):
    """Raised when a receiver's name leads nowhere."""


class AddressRefusedError(Exception):
    """Raised when a receiver's name leads only where deliveries must not go."""


class PortRefusedError(Exception):
    """Raised when a receiver listens where deliveries must not go, since a setting has changed."""


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections to addresses that the guard allows."""

    def __init__(self, guard: AddressGuard, resolver: Resolver) -> None:
        self._guard = guard
        self._resolver = resolver
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises :class:`NameNotResolvedError`, :class:`AddressRefusedError`,
        :class:`PortRefusedError`, httpcore2's errors.

        ``timeout``: seconds in which the request is to be answered, too.
        """
        addresses = await self._list_allowed(host, port)
        if not addresses:
            raise AddressRefusedError(host)
        addresses = [item for item in addresses if self._guard.allows(ip_address(item), port)]
        if not addresses:
            raise PortRefusedError(host)
        *others, last = addresses
        # The answer has its share as well.
        share = min((timeout or math.inf) / (len(addresses) + 1), _LONGEST_TRY_SECONDS)
        for address in others:
            with contextlib.suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                stream = await self._backend.connect_tcp(
                    address, port, share, local_address, socket_options
                )
                return CountingStream(stream)
        stream = await self._backend.connect_tcp(last, port, timeout, local_address, socket_options)
        return CountingStream(stream)

    async def _list_allowed(self, host: str, port: int) -> Sequence[str]:
        if _is_address(host):
            addresses: Sequence[str] = [host]
        else:
            addresses = await self._resolve(host, port)
        return [item for item in addresses if self._guard.allows(ip_address(item))]

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        try:
            return await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise NameNotResolvedError(host) from error


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def create_pool(guard: AddressGuard, resolver: Resolver) -> httpcore2.AsyncConnectionPool:
    """Connections for one event loop. It knows neither redirects nor proxies."""
    return httpcore2.AsyncConnectionPool(
        ssl_context=httpx2.create_ssl_context(),
        # Whoever sends bounds how many there are.
        max_connections=None,
        keepalive_expiry=_KEEPALIVE_SECONDS,
        network_backend=CheckedBackend(guard, resolver),
    )
