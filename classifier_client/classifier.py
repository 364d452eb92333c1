"""The client for programs that block while they wait."""

import functools
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
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

_MOST_THREADS = 1024  # they are started as they are needed; who asks for more at once waits


def _call(
    call: Callable[Concatenate[Calls, P], Operation[T]],
) -> Callable[Concatenate["Classifier", P], T]:
    @functools.wraps(call)
    def method(self: "Classifier", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(call(self._calls, *args, **kwargs))

    return method


def _stream(
    call: Callable[Concatenate[Calls, P], Stream[T]],
) -> Callable[Concatenate["Classifier", P], Generator[T, None, None]]:
    @functools.wraps(call)
    def method(
        self: "Classifier", /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[T, None, None]:
        return self._play(call(self._calls, *args, **kwargs))

    return method


class Classifier:
    """Talks to one running service. A context manager; safe for many threads at once.

    ``token``: sent with each request, for what needs one. ``attempts``: how often a request is
    tried when the connection is lost or the service is busy; a ``timeout`` replaces the latter.

    Raises :class:`UnreachableError` for an address that is none.
    """

    def __init__(self, url: str, *, token: str | None = None, attempts: int = ATTEMPTS) -> None:
        self.url = url.rstrip("/")
        self._calls = Calls(self.url, attempts)
        self._http = httpx2.Client(**describe_connection(self.url, token))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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

    def _run(self, operation: Operation[T]) -> T:
        with closing(self._play(as_stream(operation))) as values:
            return next(values)

    def _play(self, stream: Stream[T]) -> Generator[T, None, None]:
        with _Performer(self._http, self._run) as performer:
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
                    came = performer.perform(step)
                except Exception as error:
                    failure = error


class _Performer:
    """Does the steps of one operation, and puts away what they opened."""

    def __init__(self, http: httpx2.Client, run: Callable[[Operation[Any]], Any]) -> None:
        self._http = http
        self._run = run
        self._opened = ExitStack()
        self._chunks: Iterator[bytes] = iter(())
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
        if self._threads:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def perform(self, step: Step) -> Any:
        """What came of it."""
        match step:
            case Request():
                with create_request(self._http, step) as request:
                    return self._http.send(request)
            case Listen():
                return self._listen(step)
            case Hear():
                return next(self._chunks, b"")
            case Pause():
                time.sleep(step.seconds)
            case Start():
                return self._start(step.operation)
            case Join():
                return step.started.result()
        return None

    def _listen(self, step: Listen) -> httpx2.Response:
        self._opened.close()
        with create_request(self._http, step.request) as request:
            response = self._http.send(request, stream=True)
        self._opened.callback(response.close)
        if response.is_error:
            response.read()
        else:
            self._chunks = response.iter_bytes()
        return response

    def _start(self, operation: Operation[Any]) -> "Future[Any]":
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_MOST_THREADS, "classifier")
        return self._threads.submit(self._run, operation)
