"""Answers to what never became a request: a problem document, and the end of the connection."""

from collections.abc import Iterable
from http import HTTPStatus

from app.api.problems import create_problem_response
from app.api.request_context import create_request_id, named_request
from app.core.errors import ServiceError


def render_refusal(error: ServiceError, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole answer; ``headers``: those that the server gives to every answer."""
    request_id = create_request_id()
    with named_request(request_id):
        response = create_problem_response(error)
    phrase = HTTPStatus(error.status).phrase
    own = [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
    lines = [b"%b: %b\r\n" % header for header in (*headers, *response.raw_headers, *own)]
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (
        error.status,
        phrase.encode(),
        b"".join(lines),
        bytes(response.body),
    )
