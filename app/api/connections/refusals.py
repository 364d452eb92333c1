"""Answers to what never became a request: a problem document, and the end of the connection."""

from collections.abc import Iterable
from http import HTTPStatus

from app.api.answer_headers import AnswerHeaders
from app.api.problems import create_problem_response
from app.api.request_context import create_request_id, named_request
from app.core.errors import ServiceError


def render_refusal(
    error: ServiceError, headers: Iterable[tuple[bytes, bytes]], answer_headers: AnswerHeaders
) -> bytes:
    """The whole answer; ``headers``: those that the server gives to every answer.

    ``answer_headers``: what completes it as it completes the answers of the application.
    """
    request_id = create_request_id()
    with named_request(request_id):
        response = create_problem_response(error)
    phrase = HTTPStatus(error.status).phrase
    own = [*response.raw_headers, (b"x-request-id", request_id.encode())]
    answer_headers.complete(own, {})
    lines = [b"%b: %b\r\n" % header for header in (*headers, *own, (b"connection", b"close"))]
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (
        error.status,
        phrase.encode(),
        b"".join(lines),
        bytes(response.body),
    )
