"""Batches: many images in one request, followed and read as one."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.api import batch_documentation as documentation
from app.api.answer_choice import read_answer_options
from app.api.batch_documents import describe_accepted, describe_batch, render_line
from app.api.batch_intakes import DiscardingIntake
from app.api.batch_uploads import IncomingBatch
from app.api.cache_headers import CacheUse, read_cache_use
from app.api.direct_route import create_answer, create_router, get_service, get_settings
from app.api.entity_tags import is_known
from app.api.event_stream import EventStream
from app.api.idempotency import REPLAYED, answer_once, create_reuse_error
from app.api.job_paths import ANONYMOUS
from app.api.query_parameters import read_number
from app.api.version_prefix import link_to
from app.core.errors import (
    BatchExpiredError,
    BatchNotFoundError,
    IdempotencyKeyInUseError,
    InvalidRequestError,
    QueueFullError,
    StorageFullError,
)
from app.jobs.answer_options import AnswerOptions
from app.jobs.batches import Batches
from app.jobs.idempotency import BoundKey
from app.jobs.job import Job

router = create_router("batches", prefix="/batches")

# Records in one round trip: some 100 KB, which nobody has to wait for.
_PIECE = 100

# A batch takes seconds at least.
_RETRY_AFTER_SECONDS = "2"


@router.post("", status_code=202, **documentation.SUBMIT)
async def submit_batch(request: Request) -> Response:
    if "Cancel-After" in request.headers:
        # Left aside in silence it would be a promise that nobody keeps.
        raise InvalidRequestError("A batch takes no Cancel-After header.")
    cache_use = read_cache_use(request, get_settings(request))
    options = await read_answer_options(request)
    batch_id = uuid4()
    return await answer_once(
        request,
        ANONYMOUS,
        batch_id,
        partial(_accept, request, batch_id, options, cache_use),
        partial(_replay, request, options),
    )


async def _accept(
    request: Request, batch_id: UUID, options: AnswerOptions, cache_use: CacheUse, key_name: str
) -> Response:
    """Take the images in the request's body as a new batch."""
    service = get_service(request)
    async with IncomingBatch(
        service, get_settings(request), ANONYMOUS, options.to_json(), cache_use.shares
    ) as incoming:
        images = await incoming.receive(request)
        async with service.batches.take_turn(len(images)):
            try:
                await service.batches.submit(
                    str(batch_id),
                    ANONYMOUS,
                    images,
                    options,
                    cache_use.is_fresh,
                    key_name,
                    incoming.fingerprint() if key_name else "",
                )
            except (QueueFullError, StorageFullError, IdempotencyKeyInUseError):
                raise
            except BaseException:
                # It may be accepted all the same; if not, the sweeper erases the uploads.
                incoming.keep()
                raise
        incoming.keep()
    return create_answer(describe_accepted(batch_id, images), 202, _follow(request, batch_id))


async def _replay(request: Request, options: AnswerOptions, bound: BoundKey) -> Response:
    """Answer a batch whose key is bound to one, if it is the same batch."""
    intake = DiscardingIntake(get_service(request).begin_upload)
    async with IncomingBatch(
        intake, get_settings(request), ANONYMOUS, options.to_json(), shares=False
    ) as incoming:
        images = await incoming.receive(request)
        if incoming.fingerprint() != bound.fingerprint:
            raise create_reuse_error(bound)
    try:
        batch, job_ids = await _get_batches(request).get_accepted(bound.id, ANONYMOUS)
    except BatchNotFoundError:
        # A key outlives its batch, which surely was accepted once.
        raise BatchExpiredError(batch_id=bound.id) from None
    accepted = [
        replace(image, job_id=job_id) for image, job_id in zip(images, job_ids, strict=True)
    ]
    headers = REPLAYED | _follow(request, UUID(bound.id))
    if batch.has_ended():
        del headers["Retry-After"]
    return create_answer(describe_accepted(UUID(bound.id), accepted), 202, headers)


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
