"""Which web pages of other origins may use the API.

Browsers ask before most requests of such a page (the CORS protocol of the Fetch standard), but not
before a plain form's POST: an upload, or a call without a body. Those they only label.
"""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.host_header import parse_host, parse_origin
from app.api.problems import create_problem_response
from app.core.config import CorsSettings
from app.core.errors import CrossOriginError

_METHODS = ("GET", "HEAD", "POST", "DELETE")

_REQUEST_HEADERS = (
    "Authorization",
    "Cache-Control",
    "Cancel-After",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "X-Request-ID",
)

# Scripts of other origins see few headers of an answer unless they are named.
_ANSWER_HEADERS = (
    "Cache-Status",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "X-Request-ID",
)

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_LABELS = frozenset({b"sec-fetch-site", b"origin", b"host"})

_OWN_SITES = (b"same-origin", b"none")

# A day, for which browsers need not ask again; they shorten it as they like.
_MAX_AGE_SECONDS = 86_400


def allow_origins(app: ASGIApp, settings: CorsSettings) -> ASGIApp:
    """The application, open to the origins in the settings; itself when there are none."""
    if not settings.list_origins():
        return app
    return CORSMiddleware(
        app,
        allow_origins=settings.list_origins(),
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
        max_age=_MAX_AGE_SECONDS,
    )


class CrossOriginGuard:
    """Refuses what pages of other origins would change (403), unless the settings name them.

    Programs send neither of the headers that browsers label such requests with, and pass.
    """

    def __init__(self, app: ASGIApp, settings: CorsSettings) -> None:
        self._app = app
        self._allowed = frozenset(settings.list_origins())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            labels = _read_labels(scope)
            if _is_foreign(labels, scope["scheme"]) and not self._is_allowed(
                labels.get(b"origin", b"")
            ):
                app = create_problem_response(CrossOriginError())
        await app(scope, receive, send)

    def _is_allowed(self, origin: bytes) -> bool:
        return "*" in self._allowed or origin.decode("latin-1") in self._allowed


def _read_labels(scope: Scope) -> dict[bytes, bytes]:
    return {name: value for name, value in scope["headers"] if name in _LABELS}


def _is_foreign(labels: dict[bytes, bytes], scheme: str) -> bool:
    if site := labels.get(b"sec-fetch-site"):
        return site not in _OWN_SITES
    # Browsers leave that out where a page came over plain HTTP from another machine.
    origin = labels.get(b"origin")
    if origin is None:
        return False
    host = parse_host(labels.get(b"host", b"").decode("latin-1"))
    return host is None or parse_origin(origin.decode("latin-1")) != host.at(scheme)
