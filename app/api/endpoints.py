"""Submitting an image, following its job, fetching its predictions."""

import contextlib
from functools import partial
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response

from app.api import documentation, upload_documentation
from app.api.direct_route import create_answer, create_router, get_service, get_settings
from app.api.entity_tags import is_known
from app.api.idempotency import answer_once, replay_job
from app.api.job_answers import create_accepted, create_end
from app.api.job_documents import describe
from app.api.job_paths import ANONYMOUS, follow, read_job_id
from app.api.preferences import name_applied, read_wait_seconds
from app.api.upload_terms import UploadTerms, read_upload_terms
from app.api.uploads import announced_bytes, receive_image
from app.core.errors import ServiceError
from app.jobs.job import Job, Reception

router = create_router("classification")


@router.post("/classify", status_code=202, **upload_documentation.CLASSIFY)
async def classify(request: Request) -> Response:
    terms = await read_upload_terms(request, ANONYMOUS)
    job_id = uuid4()
    return await answer_once(
        request,
        terms.owner,
        job_id,
        partial(_accept, request, terms, job_id),
        lambda bound: replay_job(request, terms.create_digest(), terms.wait_seconds, bound),
    )


async def _accept(request: Request, terms: UploadTerms, job_id: UUID, key_name: str) -> Response:
    """Take the image in the request's body as a new job."""
    service, settings = get_service(request), get_settings(request)
    digest = terms.create_digest() if terms.cache_use.shares or key_name else None
    with await service.admit(announced_bytes(request, settings.limits)) as in_flight:
        upload = service.create_upload(job_id)
        try:
            await receive_image(request, upload, settings, digest, in_flight)
        except BaseException:
            with contextlib.suppress(ServiceError):
                await upload.abort()
            raise
    content = digest.value() if digest else ""
    reception, job = await service.submit(
        job_id,
        upload,
        terms.owner,
        patience_seconds=terms.patience_seconds,
        wait_seconds=terms.wait_seconds,
        priority=terms.priority,
        content=content if terms.cache_use.shares else "",
        is_fresh=terms.cache_use.is_fresh,
        options=terms.options,
        key_name=key_name,
        fingerprint=content if key_name else "",
    )
    headers = terms.cache_use.describe(reception) | name_applied(terms.wait_seconds)
    if job is not None and job.has_ended():
        return create_end(job, headers)
    return create_accepted(request, job_id, headers, is_answered=reception is Reception.ANSWERED)


@router.get("/status/{job_id}", **documentation.STATUS)
async def get_status(request: Request) -> Response:
    job, wait_seconds = await _find_job(request)
    headers = {"ETag": f'"{job.version}"'} | name_applied(wait_seconds)
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return create_answer(describe(job), headers=headers)


@router.get("/result/{job_id}", **documentation.RESULT)
async def get_result(request: Request) -> Response:
    job, wait_seconds = await _find_job(request)
    if job.has_ended():
        return create_end(job, name_applied(wait_seconds))
    headers = follow(request, UUID(job.id)) | name_applied(wait_seconds)
    return create_answer(describe(job), 202, headers)


async def _find_job(request: Request) -> tuple[Job, int]:
    """The job in the path, and how many seconds its end was waited for at most."""
    job_id = read_job_id(request)
    limit_seconds = get_settings(request).result.wait_limit_seconds
    wait_seconds = read_wait_seconds(request, limit_seconds)
    return await get_service(request).get_job(job_id, wait_seconds), wait_seconds
