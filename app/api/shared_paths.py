"""Paths that several routes share, each with methods of its own."""

from starlette.types import Receive, Scope, Send

from app.api.direct_route import DirectRoute
from app.core.errors import MethodNotAllowedError


class SharedPathRoute(DirectRoute):
    """A route whose path others have too: ``Allow`` names the methods of all.

    Starlette's names those of the route alone, which is right where a path has one route.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            methods = {
                method
                for route in scope["router"].routes
                if isinstance(route, DirectRoute) and route.path == self.path
                for method in route.methods or ()
            }
            raise MethodNotAllowedError(headers={"Allow": ", ".join(sorted(methods))})
        await super().handle(scope, receive, send)
