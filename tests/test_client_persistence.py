"""What the Python client does when connections break and services are busy."""

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from classifier_client import NotFinishedError, ProblemError, UnreachableError
from classifier_client.event_stream import EventStream
from classifier_client.persistence import IN_USE_SECONDS
from tests.api_client import SAMPLE
from tests.api_server import run_api
from tests.clients import Create

JOB_ID = "5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11"
ACCEPTED = {"job_id": JOB_ID, "status": "pending"}
TIME = "2026-11-23T12:00:00.125Z"
RESULT = {
    "job_id": JOB_ID,
    "predictions": [{"class_name": "lynx\u2028", "confidence": 0.5}],
    "processing_time": 0.1,
    "queue_time": 0.1,
    "created_at": TIME,
    "completed_at": TIME,
    "model": {"name": "a-model", "version": "7", "engine": "torch"},
}
SOON = {"Retry-After": "0.01"}
LATE = {"Retry-After": "86400"}


@dataclass(frozen=True)
class Reply:
    """An answer. One that is ``cut`` promises more than comes before the connection ends."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False


def say(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers or {})


def refuse(status: int, headers: dict[str, str], code: str = "queue-full") -> Reply:
    return say({"title": "Too much work", "detail": "Later.", "code": code}, status, headers)


CUT = Reply(200, b"{", {"Content-Length": "100"}, is_cut=True)


class Script:
    """An application that gives these answers one after the other, and the last one for ever."""

    def __init__(self, replies: Iterable[Reply]) -> None:
        self._replies = list(replies)
        self.requests: list[tuple[Request, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        self.requests.append((request, await request.body()))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await send(start)
        body = {"type": "http.response.body", "body": reply.body, "more_body": reply.is_cut}
        await send(body)

    def sent(self, name: str) -> list[str | None]:
        """That header of each request."""
        return [request.headers.get(name) for request, _ in self.requests]


@contextmanager
def play(*replies: Reply) -> Iterator[tuple[str, Script]]:
    script = Script(replies)
    with run_api(script) as url:
        yield url, script


@pytest.mark.parametrize(
    "refusal",
    [
        CUT,
        refuse(429, SOON),
        refuse(503, SOON),
        refuse(503, {}),
        refuse(429, {"Retry-After": "Mon, 23 Nov 2026 12:00:00 GMT"}),
        refuse(409, SOON, "idempotency-key-in-use"),
    ],
    ids=["cut", "429", "503", "no-time", "past-date", "in-use"],
)
def test_an_image_is_sent_again_under_the_same_key(create_client: Create, refusal: Reply) -> None:
    with play(refusal, refusal, say(ACCEPTED, 202)) as (url, script):
        assert create_client(url).submit(SAMPLE).job_id == JOB_ID
        assert create_client(url).submit(SAMPLE, idempotency_key='my "key"').job_id == JOB_ID
    first, second, third, other = script.sent("idempotency-key")
    assert first == second == third
    assert first and first[0] == first[-1] == '"'
    assert other == r'"my \"key\""'
    assert len({len(body) for _, body in script.requests}) == 1
    assert all(SAMPLE.read_bytes() in body for _, body in script.requests)


def test_an_image_outlasts_the_key_of_a_process_that_was_killed(create_client: Create) -> None:
    in_use = refuse(409, SOON, "idempotency-key-in-use")
    with play(*[in_use] * 3, say(ACCEPTED, 202)) as (url, script):
        assert create_client(url, attempts=1).submit(SAMPLE).job_id == JOB_ID
    assert len(script.requests) == 4
    assert len(set(script.sent("idempotency-key"))) == 1


def test_a_key_that_stays_in_use_is_given_up(create_client: Create) -> None:
    too_late = {"Retry-After": str(IN_USE_SECONDS + 1)}
    with play(refuse(409, too_late, "idempotency-key-in-use")) as (url, script):
        with pytest.raises(ProblemError):
            create_client(url, attempts=1).submit(SAMPLE)
    assert len(script.requests) == 1


def test_a_file_may_have_any_name(create_client: Create, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    path.write_bytes(SAMPLE.read_bytes())
    with play(say(ACCEPTED, 202)) as (url, script):
        client = create_client(url)
        client.submit(path)
        with path.open("rb") as file:
            client.submit(file)
    assert all(b'filename="caf?.jpg"' in body for _, body in script.requests)


@pytest.mark.parametrize("key", ["caf\u00e9", "two\nlines", "\udce9"])
def test_an_idempotency_key_is_printable_ascii(create_client: Create, key: str) -> None:
    with play(say(ACCEPTED, 202)) as (url, script):
        with pytest.raises(ValueError, match="^idempotency_key must consist of printable ASCII"):
            create_client(url).submit(SAMPLE, idempotency_key=key)
    assert not script.requests


def test_options_go_out_as_the_service_has_them(create_client: Create) -> None:
    with play(say(ACCEPTED, 202)) as (url, script):
        create_client(url).submit(
            SAMPLE, priority="bulk", top_k=3, threshold=0.25, model="m", cancel_after=30
        )
    ((request, _),) = script.requests
    assert dict(request.query_params) == {
        "priority": "bulk",
        "top_k": "3",
        "threshold": "0.25",
        "model": "m",
    }
    assert request.headers["cancel-after"] == "30s"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.submit(SAMPLE, treshold=0.9),
        lambda client: client.classify(SAMPLE, treshold=0.9),
        lambda client: list(client.classify_many([], treshold=0.9)),
        lambda client: client.submit_batch([SAMPLE], treshold=0.9),
        lambda client: list(client.classify_batch([SAMPLE], treshold=0.9)),
    ],
    ids=["submit", "classify", "classify-many", "submit-batch", "classify-batch"],
)
def test_an_option_that_there_is_not_is_told(
    create_client: Create, ask: Callable[[Any], object]
) -> None:
    with play(say(RESULT)) as (url, script):
        with pytest.raises(TypeError, match="'treshold'"):
            ask(create_client(url))
    assert not script.requests


def test_a_batch_has_no_priority(create_client: Create) -> None:
    with play(say(ACCEPTED, 202)) as (url, _):
        with pytest.raises(TypeError, match="'priority'"):
            create_client(url).submit_batch([SAMPLE], priority="interactive")


def test_a_service_that_stays_busy_has_its_say(create_client: Create) -> None:
    with play(refuse(429, SOON)) as (url, script):
        with pytest.raises(ProblemError) as raised:
            create_client(url, attempts=3).submit(SAMPLE)
    assert (raised.value.status, raised.value.code) == (429, "queue-full")
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("call", ["submit", "classify"])
def test_a_busy_service_is_obeyed_as_long_as_there_is_time(
    create_client: Create, call: str, status: int
) -> None:
    busy = refuse(status, SOON)
    answer = say(RESULT) if call == "classify" else say(ACCEPTED, 202)
    with play(*[busy] * 3, answer) as (url, script):
        ask = getattr(create_client(url, attempts=2), call)
        assert ask(SAMPLE, timeout=60).job_id == JOB_ID
    assert len(script.requests) == 4


def test_nobody_comes_back_earlier_than_asked(create_client: Create) -> None:
    with play(refuse(429, {"Retry-After": "3600"})) as (url, script):
        with pytest.raises(ProblemError):
            create_client(url).submit(SAMPLE)
    assert len(script.requests) == 1


def test_nobody_comes_back_after_the_time_is_up(create_client: Create) -> None:
    with play(refuse(429, {"Retry-After": "40"})) as (url, script):
        with pytest.raises(ProblemError):
            create_client(url).classify(SAMPLE, timeout=20)
    assert len(script.requests) == 1


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Where connections come about and nothing is ever read or answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("image", [SAMPLE, bytes(2**25)], ids=["unanswered", "unread"])
def test_an_image_that_is_not_answered_ends_with_its_time(
    create_client: Create, silent_url: str, image: Any
) -> None:
    with pytest.raises(NotFinishedError, match="no answer in time") as raised:
        create_client(silent_url).classify(image, timeout=0.5)
    assert raised.value.job_id is None
    assert longest_timeout(raised.value) <= 2


def test_waiting_that_is_not_answered_ends_with_its_time(
    create_client: Create, silent_url: str
) -> None:
    with pytest.raises(NotFinishedError) as raised:
        create_client(silent_url).wait(JOB_ID, timeout=0.5)
    assert raised.value.job_id == JOB_ID
    assert longest_timeout(raised.value) <= 2


def longest_timeout(error: BaseException) -> float:
    """Seconds that the request which the error is of was given to connect, write or read."""
    assert isinstance(error.__cause__, httpx2.TimeoutException)
    return max(error.__cause__.request.extensions["timeout"].values())


def test_what_is_sent_again_has_only_the_time_that_is_left(create_client: Create) -> None:
    with play(refuse(503, {"Retry-After": "1"}), say(RESULT)) as (url, script):
        create_client(url).classify(SAMPLE, timeout=30)
    assert script.sent("prefer")[0] == "wait=30"
    assert script.sent("prefer")[1] != "wait=30"


def test_a_conflict_without_a_time_is_final(create_client: Create) -> None:
    with play(refuse(409, {}, "job-ended")) as (url, script):
        with pytest.raises(ProblemError) as raised:
            create_client(url).cancel(JOB_ID)
    assert raised.value.code == "job-ended"
    assert len(script.requests) == 1


LOST = [CUT, refuse(503, SOON)]


@pytest.mark.parametrize("lost", LOST, ids=["cut", "503"])
@pytest.mark.parametrize("kind", ["job", "batch"])
def test_what_was_erased_before_the_answer_was_lost_is_erased(
    create_client: Create, kind: str, lost: Reply
) -> None:
    gone = refuse(410, {}, f"{kind}-erased")
    with play(lost, gone) as (url, script):
        client = create_client(url)
        delete = client.delete if kind == "job" else client.delete_batch
        delete(JOB_ID)
        with pytest.raises(ProblemError, match="Too much work"):
            delete(JOB_ID)
    assert len(script.requests) == 3


def test_a_refusal_is_no_lost_answer(create_client: Create) -> None:
    with play(refuse(429, SOON), refuse(410, {}, "job-erased")) as (url, _):
        with pytest.raises(ProblemError):
            create_client(url).delete(JOB_ID)


@pytest.mark.parametrize("lost", LOST, ids=["cut", "503"])
def test_what_was_cancelled_before_the_answer_was_lost_is_cancelled(
    create_client: Create, lost: Reply
) -> None:
    ended = refuse(409, {}, "job-ended")
    status = {"job_id": JOB_ID, "status": "cancelled", "progress": 0, "updated_at": TIME}
    with play(lost, ended, say(status)) as (url, _):
        assert create_client(url).cancel(JOB_ID).status == "cancelled"
    with play(lost, ended, say(status | {"status": "completed"})) as (url, _):
        with pytest.raises(ProblemError) as raised:
            create_client(url).cancel(JOB_ID)
    assert raised.value.code == "job-ended"


def test_a_service_that_does_not_wait_is_not_asked_all_the_time(create_client: Create) -> None:
    unfinished = say(ACCEPTED, 202)
    with play(unfinished) as (url, script):
        with pytest.raises(NotFinishedError):
            create_client(url).classify(SAMPLE, timeout=1)
    assert len(script.requests) <= 3


def test_waiting_goes_on_with_the_job_that_the_upload_began(create_client: Create) -> None:
    waited = {"Preference-Applied": "wait=60", "Retry-After": "0.01"}
    replies = [CUT, say(ACCEPTED, 202, waited), CUT, say(ACCEPTED, 202, waited), say(RESULT)]
    with play(*replies) as (url, script):
        assert create_client(url).classify(SAMPLE).predictions[0].confidence == 0.5
    upload, result = ("POST", "/classify"), ("GET", f"/result/{JOB_ID}")
    assert [(request.method, request.url.path) for request, _ in script.requests] == [
        *[upload] * 2,
        *[result] * 3,
    ]
    assert set(script.sent("prefer")) == {"wait=60"}


@pytest.mark.parametrize("body", [b"hello", b"[1]", b'{"unknown": 1}'])
def test_says_when_something_else_answers(create_client: Create, body: bytes) -> None:
    with play(Reply(200, body)) as (url, _):
        client = create_client(url)
        for call in (client.status, client.result, lambda job_id: list(client.events(job_id))):
            with pytest.raises(UnreachableError, match="it answered 200 with"):
                call(JOB_ID)


# --- Events ---------------------------------------------------------------------------------------


def tell(version: str, status: str, progress: int) -> bytes:
    snapshot = {"job_id": JOB_ID, "status": status, "progress": progress, "updated_at": TIME}
    return f"id: {version}\nevent: status\ndata: {json.dumps(snapshot)}\n\n".encode()


def stream(*parts: bytes, is_cut: bool = False) -> Reply:
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return Reply(200, b"retry: 10\n\n" + b"".join(parts), headers, is_cut)


def test_events_go_on_where_they_broke_off(create_client: Create) -> None:
    replies = [
        stream(is_cut=True),
        stream(tell("v1", "pending", 0), b": still here\n\n", b"id: v2\ndata: {", is_cut=True),
        refuse(503, SOON),
        stream(tell("v3", "processing", 40)),
        stream(tell("v4", "completed", 100), tell("v5", "never", 0)),
    ]
    with play(*replies) as (url, script):
        events = list(create_client(url).events(JOB_ID))
    assert [(event.status, event.progress) for event in events] == [
        ("pending", 0),
        ("processing", 40),
        ("completed", 100),
    ]
    assert script.sent("last-event-id") == [None, None, "v1", "v1", "v3"]


def test_events_end_when_there_is_nothing_left_to_tell(create_client: Create) -> None:
    with play(stream(tell("v1", "processing", 40)), Reply(204)) as (url, _):
        assert [event.progress for event in create_client(url).events(JOB_ID)] == [40]


def test_events_of_what_is_not_there_raise_the_problem(create_client: Create) -> None:
    with play(refuse(410, {}, "job-erased")) as (url, script):
        with pytest.raises(ProblemError) as raised:
            list(create_client(url).events(JOB_ID))
    assert raised.value.code == "job-erased"
    assert len(script.requests) == 1


def test_events_that_never_come_are_given_up(create_client: Create) -> None:
    with play(stream()) as (url, script):
        with pytest.raises(UnreachableError, match="the events broke off"):
            list(create_client(url, attempts=3).events(JOB_ID))
    assert len(script.requests) == 3


def test_an_event_may_come_in_any_pieces() -> None:
    text = "retry: 10\r\n\r\n: note\rid: ä\ndata:one\u2028\r\ndata: two\r\n\r\ndata\ndata: x\n\n"
    for size in range(1, 12):
        parser = EventStream()
        raw = text.encode()
        chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
        data = [item for chunk in chunks for item in parser.feed(chunk)]
        assert data == ["one\u2028\ntwo", "\nx"]
        assert (parser.last_id, parser.retry_seconds) == ("ä", 0.01)
