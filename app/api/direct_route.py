"""Routes that FastAPI documents but does not get between: what every endpoint here is."""

from typing import cast

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.answer_headers import NOT_KEPT, REVALIDATED
from app.core.config import Settings
from app.core.errors import MethodNotAllowedError
from app.jobs.service import JobService


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request and gives the response, as in Starlette.

    FastAPI's machinery for arguments and answers costs every request (docs/performance.md), and
    there is nothing here that it could do: a body is streamed, answers are made of schemas already.
    """

    cache_control = REVALIDATED
    """What caches may do with answers that don't say so themselves."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            # Other routes may have the same path, each with methods of its own.
            methods = {
                method
                for route in scope["app"].routes
                if isinstance(route, DirectRoute) and route.path == self.path
                for method in route.methods or ()
            }
            raise MethodNotAllowedError(headers={"Allow": ", ".join(sorted(methods))})
        # What an endpoint raises is answered by the middleware around the routes.
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class ConfidentialRoute(DirectRoute):
    """A route whose answers show secrets or what strangers sent: nothing on the way keeps them."""

    cache_control = NOT_KEPT


def create_router(
    tag: str, prefix: str = "", route_class: type[DirectRoute] = DirectRoute
) -> APIRouter:
    """A router of direct routes; an operation's id is its endpoint's name."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=route_class,
        generate_unique_id_function=lambda route: route.name,
    )


def get_service(request: Request) -> JobService:
    """The service that ``lifespan`` opened."""
    return cast(JobService, request.app.state.service)


def get_settings(request: Request) -> Settings:
    """The application's settings."""
    return cast(Settings, request.app.state.settings)


def create_answer(
    document: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The response that carries a document of :mod:`app.models.schemas`."""
    return create_json_answer(document.model_dump_json(), status, headers)


class _JsonAnswer(Response):
    """JSON, its headers written at once: that is worth the headers that every answer gets since."""

    media_type = "application/json"

    def __init__(self, text: str, status: int, headers: dict[str, str]) -> None:
        self.status_code, self.background = status, None
        self.body = text.encode()
        self.raw_headers = [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()),
        ]


def create_json_answer(
    text: str, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The response that carries JSON."""
    return _JsonAnswer(text, status, headers or {})
