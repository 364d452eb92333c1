"""Which web pages of other origins may use the API (the CORS protocol of the Fetch standard)."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from app.core.config import CorsSettings

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
