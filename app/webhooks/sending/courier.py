"""One attempt to deliver: the request, its signature, and what follows from the answer."""

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import dataclass

import httpcore2

from app.webhooks.sending.connections import (
    AddressRefusedError,
    NameNotResolvedError,
    PortRefusedError,
)
from app.webhooks.sending.event import render_event
from app.webhooks.sending.ledger import AttemptReport, DeliveryClaim, Verdict
from app.webhooks.sending.retry_schedule import find_delay, read_retry_after
from app.webhooks.signing import sign

logger = logging.getLogger(__name__)

_USER_AGENT = "image-classifier-webhooks"

# So much of an answer is read, to use the connection again; none of it is kept.
_MOST_READ_BYTES = 16_384
_MOST_READ_SECONDS = 1.0

_LOST_CONNECTION = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    OSError,
)

_GONE = 410


@dataclass(frozen=True, slots=True)
class _Answer:
    status_code: int | None = None
    error: str | None = None
    retry_after_seconds: float = 0


class Courier:
    """Sends events. ``service_url`` is where receivers find results, ``None`` to leave that out."""

    def __init__(
        self,
        pool: httpcore2.AsyncConnectionPool,
        timeout_seconds: float,
        service_url: str | None,
    ) -> None:
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._service_url = service_url

    async def deliver(self, claim: DeliveryClaim) -> AttemptReport:
        """Attempt a delivery, whatever the receiver does."""
        started_ms, started = int(time.time() * 1000), time.monotonic()
        answer = await self._send(claim)
        delay = find_delay(claim.failed_before)
        return AttemptReport(
            claim,
            _judge(answer, delay),
            started_ms,
            int((time.monotonic() - started) * 1000),
            answer.status_code,
            answer.error,
            max(delay or 0, answer.retry_after_seconds),
            answer.retry_after_seconds,
        )

    async def _send(self, claim: DeliveryClaim) -> _Answer:
        try:
            return await self._post(claim)
        except (TimeoutError, httpcore2.TimeoutException):
            return _Answer(error="timed-out")
        except NameNotResolvedError:
            return _Answer(error="name-not-resolved")
        except AddressRefusedError:
            return _Answer(error="address-refused")
        except PortRefusedError:
            return _Answer(error="port-refused")
        except _LOST_CONNECTION:
            return _Answer(error="connection-failed")
        except Exception:
            # What nobody has thought of must not be attempted for ever.
            logger.exception("delivery %s could not be sent", claim.delivery_id)
            return _Answer(error="unexpected-error")

    async def _post(self, claim: DeliveryClaim) -> _Answer:
        body = render_event(claim, self._service_url)
        headers = _create_headers(claim, body)
        stream = self._pool.stream(
            "POST",
            claim.url,
            headers=headers,
            content=body,
            extensions={"timeout": {"connect": self._timeout_seconds}},
        )
        async with asyncio.timeout(self._timeout_seconds) as limit, stream as response:
            # The status decides; what follows it changes nothing any more.
            limit.reschedule(None)
            await _read_some(response)
        return _understand(response)


async def _read_some(response: httpcore2.Response) -> None:
    read = 0
    with contextlib.suppress(TimeoutError, *_LOST_CONNECTION):
        async with asyncio.timeout(_MOST_READ_SECONDS):
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read > _MOST_READ_BYTES:
                    break


def _understand(response: httpcore2.Response) -> _Answer:
    status = response.status
    if 300 <= status < 400:
        return _Answer(status, "redirect-refused")
    silence = 0.0
    if status >= 400:
        given = {name.lower(): value for name, value in response.headers}
        silence = read_retry_after(given.get(b"retry-after", b"").decode("latin-1").strip())
    return _Answer(status, None, silence)


def _create_headers(claim: DeliveryClaim, body: bytes) -> list[tuple[str, str]]:
    timestamp = math.floor(time.time())
    return [
        ("Host", claim.url.split("/")[2]),
        ("Content-Type", "application/json"),
        ("User-Agent", _USER_AGENT),
        ("webhook-id", claim.delivery_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", sign(claim.secrets, claim.delivery_id, timestamp, body)),
    ]


def _judge(answer: _Answer, delay: float | None) -> Verdict:
    if answer.status_code is not None and 200 <= answer.status_code < 300:
        return Verdict.DELIVERED
    if answer.status_code == _GONE:
        return Verdict.GONE
    return Verdict.FAILED if delay is None else Verdict.RETRY
