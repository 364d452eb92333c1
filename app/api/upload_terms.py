"""What an upload's headers and query ask for."""

from dataclasses import dataclass

from starlette.requests import Request

from app.api.answer_choice import read_answer_options
from app.api.cache_headers import CacheUse, read_cache_use
from app.api.deadline import read_cancel_after
from app.api.direct_route import get_settings
from app.api.preferences import read_priority, read_wait_seconds
from app.jobs.answer_options import AnswerOptions
from app.jobs.content import ContentDigest
from app.jobs.job import Priority


@dataclass(frozen=True, slots=True)
class UploadTerms:
    """Times are seconds."""

    owner: str
    patience_seconds: float | None
    wait_seconds: int
    priority: Priority
    cache_use: CacheUse
    options: AnswerOptions

    def create_digest(self) -> ContentDigest:
        """What will tell whether another upload is the same."""
        return ContentDigest(self.owner, self.options.to_json())


async def read_upload_terms(request: Request, owner: str) -> UploadTerms:
    """Raises :class:`InvalidRequestError`."""
    settings = get_settings(request)
    return UploadTerms(
        owner=owner,
        patience_seconds=read_cancel_after(request.headers.get("cancel-after")),
        wait_seconds=read_wait_seconds(request, settings.result.wait_limit_seconds),
        priority=read_priority(request),
        cache_use=read_cache_use(request, settings),
        options=await read_answer_options(request),
    )
