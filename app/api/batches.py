"""Batches: many images in one request, followed and read as one."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.api import batch_documentation as documentation
from app.api.answer_choice import read_answer_options
from app.api.batch_documents import describe_accepted, describe_batch, render_line
from app.api.batch_uploads import IncomingBatch
from app.api.cache_headers import read_cache_use
from app.api.direct_route import create_answer, create_router, get_service, get_settings
from app.api.entity_tags import is_known
from app.api.event_stream import EventStream
from app.api.job_paths import ANONYMOUS
from app.api.query_parameters import read_number
from app.api.version_prefix import link_to
from app.core.errors import (
    BatchNotFoundError,
    InvalidRequestError,
    QueueFullError,
    StorageFullError,
)
from app.jobs.batches import Batches
from app.jobs.job import Job

router = create_router("batches", prefix="/batches")

# Records in one round trip: some 100 KB, which nobody has to wait for.
_PIECE = 100

# What an upload takes and a batch does not.
_NOT_TAKEN = ("Idempotency-Key", "Cancel-After")

# A batch takes seconds at least.
_RETRY_AFTER_SECONDS = "2"


@router.post("", status_code=202, **documentation.SUBMIT)
async def submit_batch(request: Request) -> Response:
    service, settings = get_service(request), get_settings(request)
    for name in _NOT_TAKEN:
        if name in request.headers:
            # Left aside in silence it would be a promise that nobody keeps.
            raise InvalidRequestError(f"A batch takes no {name} header.")
    cache_use = read_cache_use(request, settings)
    options = await read_answer_options(request)
    batch_id = uuid4()
    async with IncomingBatch(
        service, settings, ANONYMOUS, options.to_json(), cache_use.shares
    ) as incoming:
        images = await incoming.receive(request)
        try:
            await service.batches.submit(
                str(batch_id), ANONYMOUS, images, options, cache_use.is_fresh
            )
        except (QueueFullError, StorageFullError):
            raise
        except BaseException:
            # It may be accepted all the same; if not, the sweeper erases the uploads.
            incoming.keep()
            raise
        incoming.keep()
    return create_answer(describe_accepted(batch_id, images), 202, _follow(request, batch_id))


@router.get("/{batch_id}", **documentation.STATUS)
async def get_batch(request: Request) -> Response:
    batch = await _get_batches(request).get(str(_read_id(request)), ANONYMOUS)
    headers = {"ETag": f'"{batch.changes}"'}
    if is_known(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return create_answer(describe_batch(batch), headers=headers)


@router.get("/{batch_id}/events", **documentation.EVENTS)
async def get_batch_events(request: Request) -> EventStream:
    batch = await _get_batches(request).get(str(_read_id(request)), ANONYMOUS)
    return EventStream(request, request.app.state.batch_feeds, batch.id)


@router.get("/{batch_id}/results", **documentation.RESULTS)
async def get_batch_results(request: Request) -> Response:
    batches, batch_id = _get_batches(request), str(_read_id(request))
    after = read_number(request, "after", 0, 0, documentation.LARGEST_AFTER)
    await batches.get(batch_id, ANONYMOUS)
    # Before the answer begins: what goes wrong here can still be said.
    first = await batches.read_ended(batch_id, after, _PIECE)
    return StreamingResponse(
        _stream(batches, batch_id, first, after),
        media_type="application/x-ndjson",
        headers={"Cache-Control": "no-store"},
    )


async def _stream(
    batches: Batches, batch_id: str, piece: list[tuple[str, Job | None]], after: int
) -> AsyncIterator[str]:
    """Lines in pieces. If Redis goes meanwhile the answer is broken off, which clients notice."""
    while piece:
        yield "".join(render_line(job_id, job) for job_id, job in piece)
        after += len(piece)
        is_last = len(piece) < _PIECE
        piece = [] if is_last else await batches.read_ended(batch_id, after, _PIECE)


@router.post("/{batch_id}/cancel", **documentation.CANCEL)
async def cancel_batch(request: Request) -> Response:
    batch_id = _read_id(request)
    batch = await _get_batches(request).cancel(str(batch_id), ANONYMOUS)
    if batch.has_ended():
        return create_answer(describe_batch(batch))
    return create_answer(describe_batch(batch), 202, _follow(request, batch_id))


@router.delete("/{batch_id}", status_code=204, **documentation.ERASE)
async def erase_batch(request: Request) -> Response:
    await _get_batches(request).erase(str(_read_id(request)), ANONYMOUS)
    return Response(status_code=204)


def _get_batches(request: Request) -> Batches:
    return get_service(request).batches


def _read_id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["batch_id"])
    except ValueError:
        # It was never given out.
        raise BatchNotFoundError() from None


def _follow(request: Request, batch_id: UUID) -> dict[str, str]:
    location = link_to(request.scope, f"/batches/{batch_id}")
    return {"Location": location, "Retry-After": _RETRY_AFTER_SECONDS}
