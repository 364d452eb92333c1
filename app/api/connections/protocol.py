"""HTTP/1.1 as uvicorn speaks it, with an end to everything that a client may leave unfinished.

uvicorn's protocol takes heads of any size and has no clock but that of idle connections. Bodies
have theirs where they are read (:mod:`app.api.bodies`); all else that may never end is here.
"""

import asyncio
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.connections.lingering_transport import LingeringTransport
from app.api.connections.refusals import render_refusal
from app.api.connections.registry import ConnectionRegistry
from app.core.errors import (
    BadRequestError,
    HeadTooLargeError,
    ServiceError,
    SlowRequestError,
    TooManyConnectionsError,
)

# Colon, blank and line break, which the parser keeps to itself.
_FIELD_OVERHEAD = 4

# What the parser gets at once, but of bodies, so that no more goes uncounted before the next look.
_PIECE_BYTES = 65_536

# A refused client reads its answer within a round trip or two.
_REFUSAL_SECONDS = 2.0

# Requests that a client may send ahead in one piece: each takes some 3 KB until its turn comes.
_MOST_AHEAD = 200


class BoundedHttpProtocol(HttpToolsProtocol):
    """A connection. Its server's state is a :class:`ConnectionRegistry`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._registry = cast(ConnectionRegistry, server_state)
        self._client: str | int | None = None
        self._running: RequestResponseCycle | None = None
        # Bytes since a request ended or began, or its body last brought something; less those that
        # came in one piece with that.
        self._overhead = 0
        self._piece_bytes = 0
        self._most_uncounted = 0
        self._trailer_fields = self._trailer_bytes = 0
        self._is_in_head = self._is_head_timed = False
        self._has_spoken = False
        # What the connection would do after a request whose body has come.
        self._stays_open = True
        self._refusal: ServiceError | None = None
        # What may still arrive before the connection is closed, while it lingers.
        self._discardable_bytes: int | None = None

    # --- the connection -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._lingering = LingeringTransport(transport, self._linger)
        super().connection_made(self._lingering)
        registry = self._registry
        client = registry.clients.find(self.client[0] if self.client else "")
        if not registry.admit(client):
            self._refuse(TooManyConnectionsError())
            return
        self._client = client
        registry.wait(self, self.loop.time() + registry.http.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.go_on(self)
        if self._client is not None:
            self._registry.clients.leave(self._client)
        if self._running is not None:
            # uvicorn tells the newest request alone, which may still wait behind this one.
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def expire(self) -> None:
        """End what has waited for too long: in silence, unless a request has begun."""
        if self._discardable_bytes is not None:
            self._lingering.abort()
        elif self._is_in_head:
            self._refuse(SlowRequestError())
        else:
            self.transport.close()

    def make_room(self) -> None:
        """Give the place to another connection."""
        self.connections.discard(self)
        if self._discardable_bytes is not None:
            self._lingering.abort()
            return
        if self._is_in_head or not self._has_spoken:
            error = TooManyConnectionsError()
            self._registry.note(error)
            self.transport.write(self._render(error))
        self._lingering.close_at_once()

    def shutdown(self) -> None:
        self._stays_open = False
        if self._discardable_bytes is not None:
            self._lingering.abort()
        super().shutdown()

    # --- what arrives -------------------------------------------------------------------------

    def data_received(self, data: bytes | memoryview) -> None:
        if self._discardable_bytes is not None:
            self._discardable_bytes -= len(data)
            if self._discardable_bytes < 0:
                self._lingering.abort()
            return
        if self._refusal is not None:
            return
        if len(data) > _PIECE_BYTES and not self._is_in_body():
            view = memoryview(data)
            for start in range(0, len(data), _PIECE_BYTES):
                self.data_received(view[start : start + _PIECE_BYTES])
            return
        self._has_spoken = True
        self._piece_bytes = len(data)
        self._overhead += self._piece_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing else is spoken here. The request is answered as if it had not asked.
            pass
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ServiceError) else BadRequestError())
        else:
            http = self._registry.http
            if self._overhead > http.head_bytes or (
                self._is_in_head and len(self.headers) > http.head_fields
            ):
                self._refuse(HeadTooLargeError())
            elif self._is_in_head and not self._is_head_timed and self._is_answered():
                self._time_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        # Where another request ended in the same piece, that is not counted.
        self._most_uncounted = 0 if self._overhead else self._piece_bytes

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            self._check_trailer(name, value)
            return
        name = name.lower()
        # The parser leaves what blanks follow it, which belong to no value (RFC 9112, 5).
        value = value.strip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def _check_trailer(self, name: bytes, value: bytes) -> None:
        """Trailers are for nobody here: they are counted, not kept."""
        http = self._registry.http
        self._trailer_fields += 1
        self._trailer_bytes += len(name) + len(value) + _FIELD_OVERHEAD
        if self._trailer_fields > http.head_fields or self._trailer_bytes > http.head_bytes:
            raise HeadTooLargeError()

    def on_headers_complete(self) -> None:
        http = self._registry.http
        if len(self.headers) > http.head_fields or (
            # Not all of it need be this head's.
            self._overhead + self._most_uncounted > http.head_bytes
            and self._head_bytes() > http.head_bytes
        ):
            raise HeadTooLargeError()
        if len(self.pipeline) >= _MOST_AHEAD:
            raise BadRequestError("Too many requests were sent ahead on one connection.")
        self._overhead = 0
        self._is_in_head = self._is_head_timed = False
        self._trailer_fields = self._trailer_bytes = 0
        self._registry.go_on(self)
        super().on_headers_complete()
        # Until its body has come, an answer ends the connection: what follows would be the body.
        self._stays_open = self.cycle.keep_alive
        self.cycle.keep_alive = False

    def _head_bytes(self) -> int:
        fields = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in self.headers)
        return len(self.url) + fields

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._stays_open
        super().on_message_complete()

    # --- what is answered ---------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._running = None
        self._registry.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refusal is not None:
            self._end(self._refusal)
        elif self._is_in_head:
            self._time_head()
        else:
            self._registry.wait(self, self.loop.time() + self._registry.http.keep_alive_seconds)

    def _is_answered(self) -> bool:
        """Whether no request waits for its answer."""
        return self._running is None

    def _is_in_body(self) -> bool:
        """Whether what comes next belongs to the body of the newest request."""
        return self.cycle is not None and self.cycle.more_body and not self._is_in_head

    def _time_head(self) -> None:
        self._is_head_timed = True
        self._registry.wait(self, self.loop.time() + self._registry.http.head_seconds)

    def _refuse(self, error: ServiceError) -> None:
        """Answer what can't be read on, behind the answers to what came before it, and close."""
        self._refusal = error
        self._registry.note(error)
        cycle = self.cycle
        if self._is_in_body():
            if self.pipeline:
                self.pipeline.popleft()
                return
            # To the application the client is gone.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        elif not self._is_answered():
            return
        self._end(error)

    def _end(self, error: ServiceError) -> None:
        self.transport.write(self._render(error))
        self.transport.close()

    def _render(self, error: ServiceError) -> bytes:
        registry = self._registry
        return render_refusal(error, registry.default_headers, registry.answer_headers)

    def _linger(self) -> bool:
        """Before the connection is closed: whether the client may have something left to send."""
        if self._refusal is None and (self.cycle is None or not self.cycle.more_body):
            return False
        http = self._registry.http
        seconds = http.discard_seconds if self._refusal is None else _REFUSAL_SECONDS
        self._discardable_bytes = self._registry.discard_bytes
        self.flow.resume_reading()
        self._lingering.finish()
        self._registry.wait(self, self.loop.time() + min(seconds, http.discard_seconds))
        return True
