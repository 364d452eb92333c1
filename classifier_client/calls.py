"""Every call to the service, as operations that either client performs (:mod:`.steps`)."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Unpack

import httpx2

from classifier_client.answers import (
    Document,
    Health,
    Job,
    JobPage,
    ListedJob,
    Result,
    State,
    Status,
)
from classifier_client.batch_calls import BatchCalls
from classifier_client.conversation import emit
from classifier_client.errors import ClassifierError, NotFinishedError
from classifier_client.images import ImageSource
from classifier_client.persistence import Persistence, find_asked_pause, growing_pause
from classifier_client.requests import (
    Options,
    create_read,
    create_upload,
    deadline_after,
    expect_options,
    quote_id,
)
from classifier_client.steps import Emit, Join, Operation, Pause, Request, Start, Stream

ATTEMPTS = 6  # pauses of 8 s in all after lost connections: an API process restarts in less
CONCURRENCY = 16  # two full batches of the default size: one is worked on, one waits

_PAGE = 100  # the most jobs that the service lists at once

_ACCEPTED = httpx2.codes.ACCEPTED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one image of many: a result or an error."""

    source: ImageSource
    result: Result | None = None
    error: ClassifierError | OSError | None = None


class Calls(BatchCalls):
    """All calls to the service at ``url``; those about batches are inherited."""

    def submit(
        self,
        source: ImageSource,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Operation[Job]:
        """Send an image; its job is classified in the background.

        ``source``: a path, the bytes, or an open file. ``idempotency_key``: requests with the same
        key, image and options are one job; by default each call has a key of its own, which makes
        it safe to send the image again after a lost connection. ``timeout``: for so many seconds
        it is sent again as often as a busy service asks for that.

        Raises :class:`ProblemError`, :class:`UnreachableError`, :class:`NotFinishedError` without
        a job when there was no answer in time, :class:`OSError` when the file can't be read, and
        :class:`ValueError` for a key that is not printable ASCII.
        """
        request = create_upload(source, idempotency_key, options, deadline_after(timeout))
        return (yield from self._call(request, Job.from_document))

    def classify(
        self,
        source: ImageSource,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Operation[Result]:
        """Send an image and wait for its result, ``timeout`` seconds and the time of sending.

        Raises what :meth:`submit` and :meth:`wait` do. Where the service did not even say that it
        has the image, :class:`NotFinishedError` has no ``job_id``.
        """
        deadline = deadline_after(timeout)
        request = create_upload(source, idempotency_key, options, deadline, waits=True)
        reply = yield from self._persistence.ask(request)
        document = self._read(reply)
        if reply.status_code != _ACCEPTED:
            return self._understand(reply, document, Result.from_document)
        job = self._understand(reply, document, Job.from_document)
        yield from _hold_back(reply, deadline)
        return (yield from self._wait(job.job_id, deadline))

    def classify_many(
        self,
        sources: Iterable[ImageSource],
        *,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Stream[Outcome]:
        """Classify images, ``concurrency`` of them at once; their outcomes in the images' order.

        ``timeout``: seconds for each. ``sources`` is consumed as there is room, so it may be long.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        expect_options(options, Options.__optional_keys__)
        started: deque[Any] = deque()
        for source in sources:
            if len(started) == concurrency:
                yield Emit((yield Join(started.popleft())))
            started.append((yield Start(self._try(source, timeout, options))))
        while started:
            yield Emit((yield Join(started.popleft())))

    def _try(
        self, source: ImageSource, timeout: float | None, options: Options
    ) -> Operation[Outcome]:
        try:
            result = yield from self.classify(source, timeout=timeout, **options)
        except (ClassifierError, OSError) as error:
            return Outcome(source, error=error)
        return Outcome(source, result)

    def status(self, job_id: str) -> Operation[Status]:
        """Where a job is. Raises :class:`ProblemError`, :class:`UnreachableError`."""
        return (
            yield from self._call(create_read(f"status/{quote_id(job_id)}"), Status.from_document)
        )

    def result(self, job_id: str) -> Operation[Result]:
        """What came of a job that has ended.

        Raises :class:`NotFinishedError` when it has not, :class:`ProblemError` when it came to
        nothing, :class:`UnreachableError`.
        """
        reply = yield from self._persistence.ask(create_read(f"result/{quote_id(job_id)}"))
        document = self._read(reply)
        if reply.status_code == _ACCEPTED:
            raise NotFinishedError(job_id)
        return self._understand(reply, document, Result.from_document)

    def wait(self, job_id: str, *, timeout: float | None = None) -> Operation[Result]:
        """What came of a job, as soon as it has ended.

        Raises :class:`NotFinishedError` after ``timeout`` seconds, :class:`ProblemError` when the
        job failed or was cancelled, :class:`UnreachableError`.
        """
        return (yield from self._wait(job_id, deadline_after(timeout)))

    def _wait(self, job_id: str, deadline: float) -> Operation[Result]:
        request = Request("GET", f"result/{quote_id(job_id)}", waits=True, deadline=deadline)
        while time.monotonic() < deadline:
            try:
                reply = yield from self._persistence.ask(request)
            except NotFinishedError as error:
                raise NotFinishedError(job_id) from error.__cause__
            document = self._read(reply)
            if reply.status_code != _ACCEPTED:
                return self._understand(reply, document, Result.from_document)
            yield from _hold_back(reply, deadline)
        raise NotFinishedError(job_id)

    def events(self, job_id: str) -> Stream[Status]:
        """Where a job is, now and at each change, until it has ended.

        Reconnects when the connection breaks, and misses nothing by that but steps in between.
        Raises :class:`ProblemError`, :class:`UnreachableError`.
        """
        path = f"status/{quote_id(job_id)}/events"
        return self._follow(path, Status.from_document, emit)

    def jobs(self, status: State | None = None) -> Stream[ListedJob]:
        """Your jobs, newest first; only those with ``status``, if that is given.

        They are asked for in pages, each when it is needed. Raises :class:`ProblemError`,
        :class:`UnreachableError`.
        """
        params = {"limit": str(_PAGE)} | ({"status": status} if status else {})
        while True:
            page = yield from self._call(Request("GET", "jobs", params), JobPage.from_document)
            for job in page.jobs:
                yield Emit(job)
            if page.next_cursor is None:
                return
            params = params | {"cursor": page.next_cursor}

    def cancel(self, job_id: str) -> Operation[Status]:
        """Withdraw a job: one that waits never runs, one that runs is stopped if possible.

        The status says which it was: ``cancelled``, or ``processing`` for one that may still end
        otherwise. Raises :class:`ProblemError` when it has ended, :class:`UnreachableError`.
        """
        path, look = f"jobs/{quote_id(job_id)}", self.status(job_id)
        return (yield from self._cancel(path, "job-ended", Status.from_document, look))

    def delete(self, job_id: str) -> Operation[None]:
        """Erase a job, its image and its result.

        Raises :class:`ProblemError` when there is no such job any more, :class:`UnreachableError`.
        """
        yield from self._erase(f"jobs/{quote_id(job_id)}", "job-erased")

    def health(self) -> Operation[Health]:
        """The state of the service, however bad; asked once. Raises :class:`UnreachableError`."""
        reply = yield from Persistence(self._url, attempts=1).ask(create_read("health"))
        return self._understand(reply, self._parse(reply), Health.from_document)

    def ask(self, method: str, path: str) -> Operation[Document]:
        """What the service answers to a request for which this client has no method.

        ``path`` is relative to the service's address. Raises :class:`ProblemError`,
        :class:`UnreachableError`.
        """
        reply = yield from self._persistence.ask(Request(method, path))
        return self._read(reply)

    def download(self, path: str) -> Operation[bytes]:
        """What lies at ``path``, relative to the service's address. Raises as :meth:`ask` does."""
        return (yield from self._do(create_read(path))).content


def _hold_back(reply: httpx2.Response, deadline: float) -> Operation[None]:
    """Don't ask at once where the service did not wait as it was asked to."""
    asked, applied = (
        int(seconds) if seconds.isdecimal() else 0
        for seconds in (
            reply.request.headers.get("Prefer", "").partition("=")[2],
            reply.headers.get("Preference-Applied", "").partition("=")[2],
        )
    )
    if not applied or reply.elapsed.total_seconds() < min(applied, asked) / 2:
        pause = find_asked_pause(reply) or growing_pause(2)
        yield Pause(min(pause, max(deadline - time.monotonic(), 0.0)))
