"""The calls about batches: many images in one request, followed and read as one."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Unpack

from classifier_client.batch_answers import Batch, BatchResult, BatchStatus
from classifier_client.conversation import Conversation, Sequel, emit
from classifier_client.images import ImageSource
from classifier_client.requests import AnswerOptions, create_batch_upload, create_read, quote_id
from classifier_client.steps import Emit, Operation, Request, Stream


class BatchCalls(Conversation):
    """About batches of the service at ``url``."""

    def submit_batch(
        self,
        images: Iterable[ImageSource],
        custom_ids: Sequence[str] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Operation[Batch]:
        """Send up to 1,000 images in one request; all are accepted or none.

        ``custom_ids``: what you call the images, one for each and no two alike. Files that are
        named by their paths are read while they are sent; open files before that.
        ``idempotency_key``: as in :meth:`Calls.submit`.

        An image that is refused has a job that failed.

        Raises :class:`ProblemError`, :class:`UnreachableError`, :class:`OSError` when a file can't
        be read, and :class:`ValueError` without any image or for a key that is not printable ASCII.
        """
        request = create_batch_upload(images, custom_ids or (), idempotency_key, options)
        return (yield from self._call(request, Batch.from_document))

    def batch(self, batch_id: str) -> Operation[BatchStatus]:
        """Where a batch is. Raises :class:`ProblemError`, :class:`UnreachableError`."""
        return (yield from self._call(create_read(_locate(batch_id)), BatchStatus.from_document))

    def batch_events(self, batch_id: str) -> Stream[BatchStatus]:
        """Where a batch is, now and at each change, until all of its jobs have ended.

        Reconnects as :meth:`Calls.events` does. Raises :class:`ProblemError`,
        :class:`UnreachableError`.
        """
        return self._follow_batch(batch_id, emit)

    def wait_batch(self, batch_id: str) -> Operation[BatchStatus]:
        """How a batch has ended, as soon as it has.

        Raises :class:`ProblemError`, :class:`UnreachableError`.
        """
        yield from self._follow_batch(batch_id, _pass_over)
        return (yield from self.batch(batch_id))

    def batch_results(self, batch_id: str, *, after: int = 0) -> Stream[BatchResult]:
        """What came of each image, as they end, until the batch has.

        ``after``: how many to pass over, because you have them.

        Raises :class:`ProblemError`, :class:`UnreachableError`.
        """
        return self._collect(batch_id, after, emit)

    def classify_batch(
        self,
        images: Iterable[ImageSource],
        *,
        idempotency_key: str | None = None,
        **options: Unpack[AnswerOptions],
    ) -> Stream[BatchResult]:
        """Classify up to 1,000 images in one request; what came of each, in the images' order.

        Raises what :meth:`submit_batch` does.
        """
        batch = yield from self.submit_batch(images, idempotency_key=idempotency_key, **options)
        due = deque(job.job_id for job in batch.jobs)
        early: dict[str, BatchResult] = {}

        def put_in_order(result: BatchResult) -> Stream[BatchResult]:
            early[result.job_id] = result
            while due and due[0] in early:
                yield Emit(early.pop(due.popleft()))

        yield from self._collect(batch.batch_id, 0, put_in_order)

    def cancel_batch(self, batch_id: str) -> Operation[BatchStatus]:
        """Withdraw what has not ended of a batch; what has stays, and can be read.

        It may be ``processing`` after that, while workers still have some of its jobs. Raises
        :class:`ProblemError` when it has ended, :class:`UnreachableError`.
        """
        path, look = _locate(batch_id), self.batch(batch_id)
        return (yield from self._cancel(path, "batch-ended", BatchStatus.from_document, look))

    def delete_batch(self, batch_id: str) -> Operation[None]:
        """Erase a batch, and all of its jobs with their images and results.

        Raises :class:`ProblemError` when there is no such batch any more,
        :class:`UnreachableError`.
        """
        yield from self._erase(_locate(batch_id), "batch-erased")

    def _follow_batch(self, batch_id: str, tell: Callable[[BatchStatus], Sequel]) -> Sequel:
        return self._follow(f"{_locate(batch_id)}/events", BatchStatus.from_document, tell)

    def _collect(self, batch_id: str, after: int, tell: Callable[[BatchResult], Sequel]) -> Sequel:
        """Do what ``tell`` does with each result but the first ``after``, as they come."""
        seen = after

        def fetch(status: BatchStatus) -> Sequel:
            nonlocal seen
            # Events that waited while results were fetched may tell of nothing new.
            if status.ended > seen:
                for result in (yield from self._fetch_results(batch_id, seen)):
                    seen += 1
                    yield from tell(result)

        yield from self._follow_batch(batch_id, fetch)

    def _fetch_results(self, batch_id: str, after: int) -> Operation[list[BatchResult]]:
        path, params = f"{_locate(batch_id)}/results", {"after": str(after)}
        reply = yield from self._do(Request("GET", path, params))
        return self._understand(reply, reply.content, _read_results)


def _locate(batch_id: str) -> str:
    return f"batches/{quote_id(batch_id)}"


def _read_results(content: bytes) -> list[BatchResult]:
    # As bytes: str.splitlines breaks lines at characters which JSON leaves as they are.
    return [BatchResult.from_document(json.loads(line)) for line in content.splitlines()]


def _pass_over(_: BatchStatus) -> Sequel:
    yield from ()
