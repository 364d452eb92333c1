"""The client for programs with an event loop."""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from classifier_client.calls import ATTEMPTS, Calls
from classifier_client.connection import create_request, describe_connection
from classifier_client.steps import (
    Emit,
    Hear,
    Join,
    Listen,
    Operation,
    Pause,
    Request,
    Start,
    Step,
    Stream,
    as_stream,
)

P = ParamSpec("P")
T = TypeVar("T")


def _call(
    call: Callable[Concatenate[Calls, P], Operation[T]],
) -> Callable[Concatenate["AsyncClassifier", P], Coroutine[Any, Any, T]]:
    @functools.wraps(call)
    async def method(self: "AsyncClassifier", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(call(self._calls, *args, **kwargs))

    return method


def _stream(
    call: Callable[Concatenate[Calls, P], Stream[T]],
) -> Callable[Concatenate["AsyncClassifier", P], AsyncGenerator[T, None]]:
    @functools.wraps(call)
    def method(
        self: "AsyncClassifier", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[T, None]:
        return self._play(call(self._calls, *args, **kwargs))

    return method


class AsyncClassifier:
    """:class:`Classifier` with ``await`` and ``async for``. Safe for many tasks of one loop."""

    def __init__(self, url: str, *, token: str | None = None, attempts: int = ATTEMPTS) -> None:
        self.url = url.rstrip("/")
        self._calls = Calls(self.url, attempts)
        self._http = httpx2.AsyncClient(**describe_connection(self.url, token))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    submit = _call(Calls.submit)
    classify = _call(Calls.classify)
    classify_many = _stream(Calls.classify_many)
    status = _call(Calls.status)
    result = _call(Calls.result)
    wait = _call(Calls.wait)
    events = _stream(Calls.events)
    cancel = _call(Calls.cancel)
    delete = _call(Calls.delete)
    jobs = _stream(Calls.jobs)
    submit_batch = _call(Calls.submit_batch)
    batch = _call(Calls.batch)
    batch_events = _stream(Calls.batch_events)
    batch_results = _stream(Calls.batch_results)
    wait_batch = _call(Calls.wait_batch)
    classify_batch = _stream(Calls.classify_batch)
    cancel_batch = _call(Calls.cancel_batch)
    delete_batch = _call(Calls.delete_batch)
    health = _call(Calls.health)
    ask = _call(Calls.ask)
    download = _call(Calls.download)

    async def _run(self, operation: Operation[T]) -> T:
        async with aclosing(self._play(as_stream(operation))) as values:
            return await anext(values)

    async def _play(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        async with _Performer(self._http, self._run) as performer:
            came, failure = None, None
            while True:
                try:
                    step = stream.throw(failure) if failure else stream.send(came)
                except StopIteration:
                    return
                came, failure = None, None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    came = await performer.perform(step)
                except Exception as error:
                    failure = error


class _Performer:
    """Does the steps of one operation, and puts away what they opened."""

    def __init__(
        self, http: httpx2.AsyncClient, run: Callable[[Operation[Any]], Coroutine[Any, Any, Any]]
    ) -> None:
        self._http = http
        self._run = run
        self._opened = AsyncExitStack()
        self._chunks: AsyncIterator[bytes] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._opened.aclose()

    async def perform(self, step: Step) -> Any:
        """What came of it."""
        match step:
            case Request():
                with create_request(self._http, step) as request:
                    return await self._http.send(request)
            case Listen():
                return await self._listen(step)
            case Hear():
                return await anext(self._chunks, b"") if self._chunks else b""
            case Pause():
                await asyncio.sleep(step.seconds)
            case Start():
                task = asyncio.create_task(self._run(step.operation))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return task
            case Join():
                return await step.started
        return None

    async def _listen(self, step: Listen) -> httpx2.Response:
        await self._opened.aclose()
        with create_request(self._http, step.request) as request:
            response = await self._http.send(request, stream=True)
        self._opened.push_async_callback(response.aclose)
        if response.is_error:
            await response.aread()
        else:
            self._chunks = response.aiter_bytes()
        return response
