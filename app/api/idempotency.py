"""``Idempotency-Key``: a client that does not know whether its upload arrived sends it again.

After draft-ietf-httpapi-idempotency-key-header.
"""

import re
from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from app.api.direct_route import get_service, get_settings
from app.api.job_answers import create_accepted, create_end
from app.api.preferences import name_applied
from app.api.uploads import receive_image
from app.core.errors import (
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InvalidIdempotencyKeyError,
    JobExpiredError,
    JobNotFoundError,
)
from app.core.keys import name_idempotency_key
from app.jobs.content import ContentDigest
from app.jobs.idempotency import BoundKey
from app.jobs.in_flight import create_unbounded
from app.jobs.payloads import DiscardingWriter

# A string of RFC 9651, in quotes with backslashes before quotes and backslashes; and, since most
# send them so, the key as it is.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,510})"')
_BARE = re.compile(r"[A-Za-z0-9!#$%&'*+./:=@^_`|~-]{1,255}")
_ESCAPED = re.compile(r'\\(["\\])')

_LONGEST_KEY = 255

REPLAYED = {"Idempotency-Replayed": "true"}


def read_idempotency_key(request: Request) -> str | None:
    """The header's value, ``None`` without one. Raises :class:`InvalidIdempotencyKeyError`."""
    lines = request.headers.getlist("idempotency-key")
    if not lines:
        return None
    text = lines[0].strip(" \t")
    quoted = _QUOTED.fullmatch(text)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else text
    if len(lines) > 1 or len(key) > _LONGEST_KEY or not (quoted or _BARE.fullmatch(text)):
        raise InvalidIdempotencyKeyError()
    return key


def create_reuse_error(bound: BoundKey) -> IdempotencyKeyReusedError:
    """With the job or the batch that has the key."""
    if bound.is_batch:
        return IdempotencyKeyReusedError(batch_id=bound.id)
    return IdempotencyKeyReusedError(job_id=bound.id)


async def answer_once(
    request: Request,
    owner: str,
    new_id: UUID,
    accept: Callable[[str], Awaitable[Response]],
    replay: Callable[[BoundKey], Awaitable[Response]],
) -> Response:
    """Accept what comes for the first time under the request's key, replay what came before.

    ``accept`` gets the name of the key that it shall bind to ``new_id``, empty where there is none;
    ``replay`` what the key is bound to. Raises :class:`InvalidIdempotencyKeyError`,
    :class:`IdempotencyKeyInUseError`, and what the two raise.
    """
    key = read_idempotency_key(request)
    if key is None:
        return await accept("")
    keys = get_service(request).idempotency_keys
    name = name_idempotency_key(owner, key)
    bound = await keys.reserve(name, str(new_id))
    if bound is None:
        async with keys.keep(name, str(new_id)):
            return await accept(name)
    if not bound.fingerprint:
        raise IdempotencyKeyInUseError()
    return await replay(bound)


async def replay_job(
    request: Request, digest: ContentDigest, wait_seconds: int, bound: BoundKey
) -> Response:
    """Answer an upload whose key is bound to a job, if it is the same upload.

    ``digest``: that has taken no bytes yet. Raises :class:`IdempotencyKeyReusedError`,
    :class:`JobExpiredError`, and what :func:`receive_image` and :meth:`JobService.get_job` raise.
    """
    settings = get_settings(request)
    await receive_image(request, DiscardingWriter(), settings, digest, create_unbounded())
    if digest.value() != bound.fingerprint:
        raise create_reuse_error(bound)
    try:
        job = await get_service(request).get_job(UUID(bound.id), wait_seconds)
    except JobNotFoundError:
        # A key outlives its job, which surely was accepted once.
        raise JobExpiredError(job_id=bound.id) from None
    headers = REPLAYED | name_applied(wait_seconds)
    if wait_seconds and job.has_ended():
        return create_end(job, headers)
    return create_accepted(request, UUID(bound.id), headers, is_answered=job.has_ended())
