"""Dead letters, for whoever runs the service: look at them, retry them, purge them."""

import hmac

from starlette.requests import Request
from starlette.responses import Response

from app.api import dead_letter_documentation as documentation
from app.api.direct_route import (
    ConfidentialRoute,
    create_answer,
    create_router,
    get_service,
    get_settings,
)
from app.api.query_parameters import read_number
from app.core.clock import to_datetime
from app.core.errors import (
    AdminClosedError,
    DeadLetterNotFoundError,
    UnauthorizedError,
)
from app.jobs.dead_letters import DeadLetters
from app.jobs.job import Job
from app.models.schemas import DeadLetter, DeadLetterList, DeadLettersPurged, DeadLettersRetried

router = create_router("administration", "/admin/dead-letters", ConfidentialRoute)

# Uploads are checked to begin like one of these.
_MEDIA_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


@router.get("", **documentation.LIST)
async def list_dead_letters(request: Request) -> Response:
    dead_letters = _open_dead_letters(request)
    limit = read_number(
        request, "limit", documentation.DEFAULT_LIMIT, 1, documentation.LARGEST_LIMIT
    )
    offset = read_number(request, "offset", 0, 0, documentation.LARGEST_OFFSET)
    total = await dead_letters.count()
    jobs = await dead_letters.list_newest(offset, limit)
    document = DeadLetterList(total=total, dead_letters=[_describe(job) for job in jobs])
    return create_answer(document)


@router.get("/{job_id:uuid}", **documentation.GET)
async def get_dead_letter(request: Request) -> Response:
    return create_answer(_describe(await _open_dead_letters(request).get(_read_id(request))))


@router.get("/{job_id:uuid}/upload", **documentation.UPLOAD)
async def get_dead_letter_upload(request: Request) -> Response:
    dead_letters = _open_dead_letters(request)
    job = await dead_letters.get(_read_id(request))
    upload = await dead_letters.read_upload(job.id)
    if upload is None:
        raise DeadLetterNotFoundError("The upload of this dead letter is no longer there.")
    kinds = (kind for start, kind in _MEDIA_TYPES.items() if upload.startswith(start))
    return Response(
        upload,
        media_type=next(kinds, "application/octet-stream"),
        # Opened in a browser it is no page of this service, whatever it holds.
        headers={
            "Content-Disposition": "attachment",
            "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        },
    )


@router.post("/retry", status_code=202, **documentation.RETRY_ALL)
async def retry_all_dead_letters(request: Request) -> Response:
    dead_letters = _open_dead_letters(request)
    retried = await dead_letters.retry(await dead_letters.list_ids())
    return create_answer(DeadLettersRetried(retried=len(retried)), 202)


@router.post("/{job_id:uuid}/retry", status_code=202, **documentation.RETRY)
async def retry_dead_letter(request: Request) -> Response:
    if not await _open_dead_letters(request).retry([_read_id(request)]):
        raise DeadLetterNotFoundError()
    return create_answer(DeadLettersRetried(retried=1), 202)


@router.delete("", **documentation.PURGE_ALL)
async def purge_all_dead_letters(request: Request) -> Response:
    dead_letters = _open_dead_letters(request)
    purged = await dead_letters.purge(await dead_letters.list_ids())
    return create_answer(DeadLettersPurged(purged=len(purged)))


@router.delete("/{job_id:uuid}", **documentation.PURGE)
async def purge_dead_letter(request: Request) -> Response:
    if not await _open_dead_letters(request).purge([_read_id(request)]):
        raise DeadLetterNotFoundError()
    return create_answer(DeadLettersPurged(purged=1))


def _open_dead_letters(request: Request) -> DeadLetters:
    """The dead letters, for who has the admin token: there is no other way to them here.

    Raises :class:`AdminClosedError` and :class:`UnauthorizedError`.
    """
    setting = get_settings(request).admin.token
    # A header can't begin or end with the line break that a secret from a file often has.
    token = setting.get_secret_value().strip() if setting else ""
    if not token:
        raise AdminClosedError()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Starlette reads a header's bytes as Latin-1; compared are the bytes, in constant time.
    matches = hmac.compare_digest(given.encode("latin-1"), token.encode())
    if scheme.lower() != "bearer" or not matches:
        raise UnauthorizedError(headers={"WWW-Authenticate": "Bearer"})
    return get_service(request).dead_letters


def _read_id(request: Request) -> str:
    return str(request.path_params["job_id"])


def _describe(job: Job) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "job_id": job.id,
            "reason": job.death_reason,
            "died_at": to_datetime(job.finished_ms),
            "created_at": to_datetime(job.created_ms),
            "error": job.error,
            "upload_bytes": job.upload_bytes,
            "attempts": [
                {
                    "attempt": note["attempt"],
                    "worker": note["worker"],
                    "started_at": to_datetime(note["started_ms"]),
                    "ended_at": to_datetime(note["ended_ms"]),
                    "reason": note["reason"],
                }
                for note in job.trail
            ],
        }
    )
