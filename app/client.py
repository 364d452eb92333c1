"""A client of the service over HTTP, for the command line and for the check of a fresh start."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

CONCURRENT_FILES = 16  # two full batches of the default size: one is worked on, one waits
SEND_ATTEMPTS = 6  # the first and five more; with Retry-After: 2 that sits out ten busy seconds
LONGEST_RETRY_SECONDS = 30.0
FIRST_POLL_SECONDS = 0.05  # a lone image takes about 20 ms
LONGEST_POLL_SECONDS = 0.2
POLL_GROWTH = 1.3
DEAD_LETTERS = "/admin/dead-letters"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_BUSY = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
_UNFINISHED = frozenset({"pending", "processing"})

Json = dict[str, Any]


class ServiceUnreachableError(Exception):
    """Raised when nothing answers at the service's address, or something else does."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no classification service at {url}: {reason}")


class ProblemError(Exception):
    """Raised when the service refuses a request or a job has failed; holds the problem document."""

    def __init__(self, document: Json) -> None:
        self.document = document
        super().__init__(f"{document['title']}: {document.get('detail', '')}")


class ServiceClient:
    """Talks to one running service. An async context manager; safe for many tasks at once.

    ``admin_token``: needed for dead letters. Raises :class:`ServiceUnreachableError` for an address
    that is none.
    """

    def __init__(self, url: str, admin_token: str | None = None) -> None:
        self.url = url.rstrip("/")
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL as error:
            raise ServiceUnreachableError(url, str(error)) from None
        # A proxy from the environment can't reach this machine's own addresses.
        self._http = httpx.AsyncClient(timeout=TIMEOUT, trust_env=host not in _LOOPBACK)
        if admin_token is not None:
            self._http.headers.update({b"Authorization": f"Bearer {admin_token}".encode()})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def classify(self, path: Path, report: Callable[[int], None]) -> Json:
        """Submit an image and follow it to its end; ``report`` is told its progress, 0 to 100.

        Returns the result document. Raises :class:`ProblemError`, :class:`ServiceUnreachableError`
        and, when the file can't be read, :class:`OSError`.
        """
        job_id = await self.submit(path)
        pause = FIRST_POLL_SECONDS
        while True:
            response = await self._get(f"/status/{job_id}")
            status = self._read(response)
            report(status["progress"])
            if status["status"] == "cancelled":
                raise ProblemError({"title": "Cancelled", "detail": "The job was withdrawn."})
            if status["status"] not in _UNFINISHED:
                return await self.get_result(job_id)
            await asyncio.sleep(_asked_pause(response) or pause)
            pause = min(pause * POLL_GROWTH, LONGEST_POLL_SECONDS)

    async def submit(self, path: Path) -> str:
        """Post an image; returns the job's id. Waits and tries again while the service is busy."""

        async def post() -> httpx.Response:
            with path.open("rb") as file:
                return await self._http.post(
                    f"{self.url}/classify", files={"file": (path.name, file)}
                )

        return str(self._read(await self._send(post))["job_id"])

    async def get_status(self, job_id: str) -> Json:
        """The status document of a job."""
        return self._read(await self._get(f"/status/{job_id}"))

    async def get_result(self, job_id: str) -> Json:
        """The result document of a completed job; a failed one raises :class:`ProblemError`."""
        return self._read(await self._get(f"/result/{job_id}"))

    async def list_dead_letters(self, limit: int) -> Json:
        """The latest dead letters, ``limit`` at most, and how many there are."""
        return self._read(await self._get(f"{DEAD_LETTERS}?limit={limit}"))

    async def get_dead_letter(self, job_id: str) -> Json:
        """The document of a dead letter."""
        return self._read(await self._get(f"{DEAD_LETTERS}/{job_id}"))

    async def get_dead_letter_upload(self, job_id: str) -> bytes:
        """The image of a dead letter, as it was uploaded."""
        response = await self._get(f"{DEAD_LETTERS}/{job_id}/upload")
        if response.is_error:
            self._read(response)
        return response.content

    async def retry_dead_letter(self, job_id: str) -> None:
        """Put a dead letter back into the queue."""
        await self._change("POST", f"/{job_id}/retry")

    async def retry_all_dead_letters(self) -> int:
        """Put all back into the queue; returns how many there were."""
        return int((await self._change("POST", "/retry"))["retried"])

    async def purge_dead_letter(self, job_id: str) -> None:
        """Erase a dead letter and its image."""
        await self._change("DELETE", f"/{job_id}")

    async def purge_all_dead_letters(self) -> int:
        """Erase all and their images; returns how many there were."""
        return int((await self._change("DELETE", ""))["purged"])

    async def _change(self, method: str, path: str) -> Json:
        url = f"{self.url}{DEAD_LETTERS}{path}"
        return self._read(await self._send(lambda: self._http.request(method, url)))

    async def find_health(self) -> Json | None:
        """The health document, however bad, or ``None`` while nothing answers."""
        with contextlib.suppress(httpx.TransportError, ValueError):
            document: Json = (await self._http.get(f"{self.url}/health")).json()
            return document
        return None

    async def _get(self, path: str) -> httpx.Response:
        return await self._send(lambda: self._http.get(self.url + path))

    async def _send(self, request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        for _ in range(SEND_ATTEMPTS - 1):
            response = await self._attempt(request)
            if response.status_code not in _BUSY:
                return response
            await asyncio.sleep(_asked_pause(response) or 1.0)
        return await self._attempt(request)

    async def _attempt(self, request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        try:
            return await request()
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServiceUnreachableError(self.url, reason) from None

    def _read(self, response: httpx.Response) -> Json:
        try:
            document: Json = response.json()
        except ValueError:
            reason = f"it answered {response.status_code} without JSON"
            raise ServiceUnreachableError(self.url, reason) from None
        if response.is_error:
            raise ProblemError({"title": f"HTTP {response.status_code}", **document})
        return document


def _asked_pause(response: httpx.Response) -> float | None:
    """Seconds that the answer asks to wait, at most :data:`LONGEST_RETRY_SECONDS`."""
    try:
        return min(float(response.headers["Retry-After"]), LONGEST_RETRY_SECONDS)
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one file: a result document or a problem document."""

    file: Path
    result: Json | None = None
    problem: Json | None = None

    def to_json(self) -> str:
        """One line: ``{"file": …, "result": …}`` or ``{"file": …, "problem": …}``."""
        key, value = ("result", self.result) if self.result else ("problem", self.problem)
        return json.dumps({"file": str(self.file), key: value}, ensure_ascii=False)


async def classify_files(
    url: str,
    files: Sequence[Path],
    on_progress: Callable[[int], None],
    on_answer: Callable[[Answer], None],
) -> list[Answer]:
    """Classify files, :data:`CONCURRENT_FILES` at a time; the answers in the files' order.

    ``on_progress`` is told by how many percent of a file the work has advanced, ``on_answer`` each
    answer as it comes. Raises :class:`ServiceUnreachableError` when that came of every file.
    """
    free = asyncio.Semaphore(CONCURRENT_FILES)
    unreached: list[ServiceUnreachableError] = []

    async def ask(file: Path) -> Answer:
        done = 0

        def report(percent: int) -> None:
            nonlocal done
            on_progress(percent - done)
            done = percent

        async with free:
            try:
                answer = Answer(file, result=await client.classify(file, report))
            except ProblemError as error:
                answer = Answer(file, problem=error.document)
            except OSError as error:
                detail = error.strerror or str(error)
                answer = Answer(file, problem={"title": "Unreadable file", "detail": detail})
            except ServiceUnreachableError as error:
                unreached.append(error)
                problem = {"title": "Service not reachable", "detail": str(error)}
                answer = Answer(file, problem=problem)
        report(100)
        on_answer(answer)
        return answer

    async with ServiceClient(url) as client:
        answers = await asyncio.gather(*(ask(file) for file in files))
    if len(unreached) == len(answers):
        raise unreached[0]
    return answers
