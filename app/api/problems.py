"""Every error answer, in one place: ``application/problem+json`` after RFC 9457."""

import logging
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.request_context import get_request_id
from app.core.errors import (
    BadRequestError,
    InternalError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
    ServiceUnavailableError,
)
from app.models.schemas import Problem

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

router = APIRouter(include_in_schema=False)

_BY_STATUS: dict[int, type[ServiceError]] = {
    400: BadRequestError,
    404: NotFoundError,
    405: MethodNotAllowedError,
}


def problem_type(code: str) -> str:
    """The identifier of a kind of problem: no link, so the same under any prefix (RFC 9457, 3.1.1).

    Below the service's root it is the path where the service explains it.
    """
    return f"/problems/{code}"


def create_problem_response(error: ServiceError, **extensions: Any) -> Response:
    """The answer that says what went wrong; ``extensions`` are further members of the document."""
    problem = Problem(
        type=problem_type(error.code),
        title=error.title,
        status=error.status,
        detail=error.text,
        code=error.code,
        request_id=get_request_id(),
        **{"job_id": error.job_id, "batch_id": error.batch_id} | extensions,
    )
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=error.status,
        headers=error.headers,
        media_type=MEDIA_TYPE,
    )


async def answer_internal_error(scope: Scope, receive: Receive, send: Send) -> None:
    """The application that answers what ended in an exception which nobody expected."""
    await create_problem_response(InternalError())(scope, receive, send)


def _kinds(root: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


@router.get("/problems/{code}")
async def explain_problem(code: str) -> dict[str, Any]:
    """Explain a problem's ``type``, in each status that it comes with."""
    explanations: dict[int, dict[str, Any]] = {}
    for kind in _kinds(ServiceError):
        if kind.code == code:
            explanation = {"title": kind.title, "status": kind.status, "detail": kind.detail}
            explanations.setdefault(kind.status, explanation)
    if not explanations:
        raise NotFoundError()
    first, *others = explanations.values()
    return first | ({"others": others} if others else {})


def _handle_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return create_problem_response(error)


def _handle_redis_error(request: Request, error: Exception) -> Response:
    logger.error("Redis: %s", error)
    return create_problem_response(ServiceUnavailableError())


def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, InternalError)
    return create_problem_response(kind(headers=dict(error.headers or {})))


def _handle_disconnect(request: Request, error: Exception) -> Response:
    """End what nobody waits for any more: this answer goes nowhere, its status into the log."""
    return create_problem_response(BadRequestError())


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error with a problem document. What is unexpected: see ``request_context``."""
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)
    app.add_exception_handler(ServiceError, _handle_service_error)
    app.add_exception_handler(RedisError, _handle_redis_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
