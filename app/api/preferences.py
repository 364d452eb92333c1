"""What a client would like: ``Prefer: wait=10`` (RFC 7240), ``?priority=bulk``."""

from starlette.requests import Request

from app.api.header_lists import list_items
from app.api.query_parameters import read_choice
from app.jobs.job import Priority


def read_wait_seconds(request: Request, limit_seconds: int) -> int:
    """How long the client would wait for the end of a job; 0 when it would not.

    A preference that can't be understood is ignored, as the RFC wants it; of several the first
    counts; more than ``limit_seconds`` is as good as that.
    """
    for name, value in list_items(request, "prefer"):
        if name == "wait":
            is_number = value.isascii() and value.isdecimal() and len(value) < 10
            return min(int(value), limit_seconds) if is_number else 0
    return 0


def name_applied(wait_seconds: int) -> dict[str, str]:
    """The header of an answer that was waited for."""
    return {"Preference-Applied": f"wait={wait_seconds}"} if wait_seconds else {}


def read_priority(request: Request) -> Priority:
    """The query's ``priority``. Raises :class:`InvalidRequestError` for an unknown one."""
    if not request.scope["query_string"]:
        return Priority.INTERACTIVE
    return read_choice(request, "priority", Priority) or Priority.INTERACTIVE
