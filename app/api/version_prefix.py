"""``/v1``: every call under a prefix that names the contract, beside the bare paths."""

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/v1"


class VersionPrefixMiddleware:
    """Takes the prefix for a part of the root path, as a mount would.

    Routes see the same paths, and links in answers keep the prefix (:func:`link_to`).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            prefix = scope.get("root_path", "") + PREFIX
            if scope["path"].startswith(prefix + "/"):
                scope["root_path"] = prefix
        await self._app(scope, receive, send)


def link_to(scope: Scope, path: str) -> str:
    """Where a path of this API is, as the client of this request sees it."""
    return f"{scope.get('root_path', '')}{path}"
