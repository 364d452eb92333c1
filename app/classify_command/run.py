"""Classifies images, some at once, and remembers what it has sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx2

from app.classify_command.journal import Entry, Journal
from app.classify_command.sources import Source
from app.core.foreign_text import render_json
from classifier_client import AsyncClassifier, NotFinishedError, ProblemError, UnreachableError
from classifier_client.calls import CONCURRENCY
from classifier_client.requests import Options

# Refusals that are the image's fault: sending it again would not help.
_FINAL = frozenset(
    {
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
# What became of an earlier run's key: its job's result has expired, or the image has changed since.
_SPENT = frozenset({"job-not-found", "job-expired", "idempotency-key-reused"})

_NO_ROOM = frozenset({"queue-full", "results-full", "storage-full", "service-unavailable"})
# For so long an image is sent again when the service says so: twice the longest time that it names.
_PATIENCE_SECONDS = 7200.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one image: a result document or a problem document.

    ``position``: of the image among all that were asked about.
    ``is_final``: the next run would learn nothing else.
    """

    position: int
    name: str
    document: dict[str, Any]
    is_final: bool = True

    @property
    def result(self) -> dict[str, Any] | None:
        """The result document, if it was classified."""
        return self.document.get("result")

    @property
    def problem(self) -> dict[str, Any] | None:
        """The problem document, if it was not."""
        return self.document.get("problem")

    def to_json(self) -> str:
        """One line: ``{"file": …, "result": …}`` or ``{"file": …, "problem": …}``."""
        return render_json({"file": self.name, **self.document})


class Run:
    """Asks ``client`` about images with these options."""

    def __init__(self, client: AsyncClassifier, journal: Journal, options: Options) -> None:
        self._client = client
        self._journal = journal
        self._options = options
        self._patience: float | None = _PATIENCE_SECONDS

    async def classify(self, sources: AsyncIterator[Source]) -> AsyncIterator[Answer]:
        """The answers as they come. No source is asked for before there is room for it."""

        async def take() -> Source | None:
            return await anext(sources, None)

        position = 0
        running: set[asyncio.Task[Answer]] = set()
        coming: asyncio.Task[Source | None] | None = asyncio.create_task(take())
        try:
            while coming or running:
                wanted = coming if len(running) < CONCURRENCY else None
                waited: set[asyncio.Task[Any]] = {*running, *([wanted] if wanted else [])}
                done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if coming in done:
                    source = coming.result()
                    coming = asyncio.create_task(take()) if source else None
                    if source:
                        running.add(asyncio.create_task(self._answer(position, source)))
                        position += 1
                for task in running & done:
                    running.remove(task)
                    yield task.result()
        finally:
            left = [*running, *([coming] if coming else [])]
            for unfinished in left:
                unfinished.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _answer(self, position: int, source: Source) -> Answer:
        try:
            entry = self._journal.take(source.identify())
            if entry.answer is None:
                entry.answer = {"result": await self._ask(source, entry)}
                self._journal.write(entry)
            return Answer(position, source.name, entry.answer)
        except ProblemError as error:
            document = {"problem": {"title": error.title, **error.document}}
            is_final = error.job_id is not None or error.status in _FINAL
            if is_final:
                entry.answer = document
                self._journal.write(entry)
            elif error.code in _NO_ROOM:
                self._patience = None  # once is enough, until it takes something again
            return Answer(position, source.name, document, is_final)
        except (UnreachableError, NotFinishedError) as error:
            return _fail(position, source, "Service not reachable", error)
        except httpx2.HTTPStatusError as error:
            return _fail(position, source, "Download failed", f"HTTP {error.response.status_code}")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return _fail(position, source, "Download failed", error or type(error).__name__)
        except OSError as error:
            return _fail(position, source, "Unreadable file", error.strerror or error)

    async def _ask(self, source: Source, entry: Entry) -> dict[str, Any]:
        try:
            return await self._follow(source, entry)
        except ProblemError as error:
            if error.code not in _SPENT:
                raise
        entry.key, entry.job_id = str(uuid4()), None
        return await self._follow(source, entry)

    async def _follow(self, source: Source, entry: Entry) -> dict[str, Any]:
        if entry.job_id is None:
            image = await source.read()
            self._journal.write(entry)  # from here on it may have been sent
            job = await self._client.submit(
                image, timeout=self._patience, idempotency_key=entry.key, **self._options
            )
            self._patience = _PATIENCE_SECONDS
            entry.job_id = job.job_id
            self._journal.write(entry)
        return await self._wait(entry.job_id)

    async def _wait(self, job_id: str) -> dict[str, Any]:
        while True:
            with suppress(NotFinishedError):  # it has much to do
                return dict((await self._client.wait(job_id, timeout=self._patience)).document)


def _fail(position: int, source: Source, title: str, detail: object) -> Answer:
    problem = {"title": title, "detail": str(detail)}
    return Answer(position, source.name, {"problem": problem}, is_final=False)
