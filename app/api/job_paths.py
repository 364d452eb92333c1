"""Which job a request is about, whose it is, and where it is followed."""

from uuid import UUID

from starlette.requests import Request

from app.api.version_prefix import link_to
from app.core.errors import JobNotFoundError

# Everybody, as long as nobody has to say who they are.
ANONYMOUS = "anonymous"

# Classifying takes milliseconds; a second is the least that the header can say.
_RETRY_AFTER_SECONDS = "1"


def read_job_id(request: Request) -> UUID:
    """The id in a request's path. Raises :class:`JobNotFoundError` for what can't be one."""
    try:
        return UUID(request.path_params["job_id"])
    except ValueError:
        # It was never given out.
        raise JobNotFoundError() from None


def follow(request: Request, job_id: UUID) -> dict[str, str]:
    """The headers that say where to ask for a job, and when."""
    location = link_to(request.scope, f"/status/{job_id}")
    return {"Location": location, "Retry-After": _RETRY_AFTER_SECONDS}
