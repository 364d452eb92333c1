"""Which hosts this service is: against DNS rebinding.

A page on the internet may have its own name lead to this machine once it is loaded. To the browser
it still talks to its own server, so no rule about origins stops it; only the name in its requests
gives it away.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.host_header import Host, find_host, parse_host
from app.api.machine import Machine
from app.api.problems import create_problem_response
from app.core.config import Settings
from app.core.errors import MisdirectedRequestError

# Clients write a few. Every address passes, so somebody could write very many.
_REMEMBERED = 256

_EVERY_NAME = "*"

_NO_SERVER = ("", None)


class HostGuard:
    """Refuses requests for another host than this service (421).

    One without a Host, or with two, is refused alike: whatever stands before this may have read
    another one.
    """

    def __init__(self, app: ASGIApp, settings: Settings, machine: Machine | None = None) -> None:
        self._app = app
        self._machine = machine or Machine()
        allowed = settings.allowed.list_hosts()
        self._names = {"localhost", settings.listen.host.lower(), *allowed}
        self._endings = tuple(name[1:] for name in allowed if name.startswith("*."))
        # As they come, so that what comes again is not read again; with the port where they came
        # in, which the machine's own names depend on.
        self._known: set[tuple[bytes, int | None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            value = find_host(scope)
            # A Unix socket has no port.
            port = (scope.get("server") or _NO_SERVER)[1]
            if (value, port) not in self._known and not await self._admit(value, port):
                app = create_problem_response(MisdirectedRequestError())
        await app(scope, receive, send)

    async def _admit(self, value: bytes, port: int | None) -> bool:
        host = parse_host(value.decode("latin-1"))
        if host is None or not await self._is_own(host, port):
            return False
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known.add((value, port))
        return True

    async def _is_own(self, host: Host, port: int | None) -> bool:
        # Any address: rebinding takes a name, and a page that came from an address stays there.
        if host.is_address or host.name in self._names or _EVERY_NAME in self._names:
            return True
        return host.name.endswith(self._endings) or await self._is_machine(host.name, port)

    async def _is_machine(self, name: str, port: int | None) -> bool:
        """Whether it is a name of this machine, where others can reach the service."""
        own_name = self._machine.get_name()
        label = own_name.partition(".")[0]
        # Nobody beyond this machine reaches a Unix socket.
        if name.partition(".")[0] != label or port is None:
            return False
        if not self._machine.listens_beyond_loopback(port):
            return False
        # The second is how a local network finds it without a DNS server (RFC 6762).
        return name in (label, f"{label}.local", own_name) or (
            name == await self._machine.find_full_name()
        )
