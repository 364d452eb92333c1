"""Large answers compressed: the OpenAPI document, pages and their scripts, lists, results."""

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

# Less fits into one packet either way.
_WORTH_BYTES = 1400

# Better levels take several times as long for a few percent.
_LEVEL = 6


class CompressionMiddleware:
    """Looks at answers to GET only: an upload's is small, and that path is to be short.

    Events are left as they are. A batch's results leave piece by piece, as they are read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressed = GZipMiddleware(app, minimum_size=_WORTH_BYTES, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_get = scope["type"] == "http" and scope["method"] == "GET"
        await (self._compressed if is_get else self._app)(scope, receive, send)
