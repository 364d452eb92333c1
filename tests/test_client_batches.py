"""Batches in the Python client, and the list of jobs: both kinds, one set of facts."""

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import keys
from app.core.config import QueueSettings, Settings
from app.jobs.job import Outcome
from app.main import create_app
from classifier_client import ProblemError, UnreachableError
from tests.api_client import SAMPLE
from tests.api_server import run_api
from tests.batch_desk import BatchDesk
from tests.clients import Create
from tests.service import RunningService, wait_until
from tests.test_cli import SAMPLES
from tests.test_client_persistence import CUT, SOON, TIME, Reply, play, refuse, say
from tests.test_dead_letters import PREDICTIONS

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(desk: BatchDesk, create_client: Create) -> Any:
    return create_client(desk.url)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Where a client waits while the test does the worker's part."""
    with ThreadPoolExecutor() as threads:
        yield threads


# --- Sending --------------------------------------------------------------------------------------


def test_a_batch_has_a_job_for_each_image_in_their_order(desk: BatchDesk, client: Any) -> None:
    image = SAMPLE.read_bytes()
    sources = iter([SAMPLE, str(SAMPLES / "rocket.jpg"), image, io.BytesIO(image)])
    batch = client.submit_batch(sources, ["a", "b", "ä", "d"], top_k=2, threshold=0.5)
    assert [(job.filename, job.custom_id) for job in batch.jobs] == [
        ("cat.jpg", "a"),
        ("rocket.jpg", "b"),
        ("image", "ä"),
        ("image", "d"),
    ]
    assert batch.total == 4
    assert desk.uploads() == {job.job_id for job in batch.jobs}
    claims = desk.claim()
    assert [claim.job_id for claim in claims] == [job.job_id for job in batch.jobs]
    assert {(claim.options.top_k, claim.options.threshold) for claim in claims} == {(2, 0.5)}
    status = client.batch(batch.batch_id)
    assert (status.batch_id, status.status, status.total) == (batch.batch_id, "processing", 4)
    assert (status.processing, status.pending, status.ended, status.progress) == (4, 0, 0, 0)
    assert status.created_at <= status.updated_at
    assert not status.has_ended()


def test_images_need_no_custom_ids(client: Any) -> None:
    batch = client.submit_batch([SAMPLE] * 2)
    assert [job.custom_id for job in batch.jobs] == [None, None]


def test_what_makes_no_sense_is_refused(client: Any) -> None:
    with pytest.raises(ProblemError, match="'a' is there 2 times"):
        client.submit_batch([SAMPLE] * 2, custom_ids=["a", "a"])
    with pytest.raises(ProblemError, match="top_k"):
        client.submit_batch([SAMPLE], top_k=1000)
    with pytest.raises(ValueError, match="at least one image"):
        client.submit_batch([])
    with pytest.raises(ValueError, match="at least one image"):
        list(client.classify_batch([]))


def test_a_refusal_is_heard_before_all_was_sent(settings: Settings, create_client: Create) -> None:
    queue = QueueSettings(max_jobs=5)
    with run_api(create_app(settings.model_copy(update={"queue": queue}))) as url:
        with pytest.raises(ProblemError, match="5 images at most"):
            create_client(url).submit_batch([SAMPLE] * 500)


def test_nothing_is_sent_when_a_file_can_not_be_read(desk: BatchDesk, client: Any) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        client.submit_batch([SAMPLE, "nowhere.jpg"])
    assert client.submit_batch([SAMPLE]).total == 1
    assert len(desk.uploads()) == 1


@pytest.mark.parametrize("kind", ["Classifier", "Awaited"])
def test_a_thousand_files_are_neither_in_memory_nor_open_at_once(
    kind: str, desk: BatchDesk, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(1000):
        with (folder / f"{number:04}.jpg").open("wb") as file:
            file.truncate(64 * 1024)
    answer = subprocess.run(
        [sys.executable, "-c", SEND_FOLDER, kind, desk.url, str(folder)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    sent, most_mebibytes = map(int, answer.stdout.split())
    assert sent == 1000
    # Of 63 in all; what is said about a thousand parts of a form takes some.
    assert most_mebibytes < 20


SEND_FOLDER = """
import resource, sys, tracemalloc
from pathlib import Path
from classifier_client import Classifier
from tests.clients import Awaited

kind, url, folder = sys.argv[1:]
client = {"Classifier": Classifier, "Awaited": Awaited}[kind](url)
files = list(Path(folder).iterdir())
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
tracemalloc.start()
batch = client.submit_batch(files)
print(batch.total, tracemalloc.get_traced_memory()[1] // 2**20)
"""


# --- Following ------------------------------------------------------------------------------------


def test_results_come_while_the_batch_runs(desk: BatchDesk, client: Any) -> None:
    batch = client.submit_batch([SAMPLE] * 4, ["a", "b", "c", "d"])
    desk.complete(1)
    results = client.batch_results(batch.batch_id)
    first = next(results)
    assert (first.job_id, first.custom_id) == (batch.jobs[0].job_id, "a")
    assert (first.filename, first.status, first.problem) == ("cat.jpg", "completed", None)
    assert [(item.class_name, item.confidence) for item in first.predictions] == [
        (item["class_name"], item["confidence"]) for item in PREDICTIONS
    ]
    (claim,) = desk.claim(1)
    desk.ledger.finish([Outcome.failed(claim, "truncated-image", "Send the whole file.")])
    second = next(results)
    assert (second.custom_id, second.status, second.predictions) == ("b", "failed", ())
    assert (second.problem.status, second.problem.code) == (422, "truncated-image")
    assert (second.problem.job_id, second.problem.detail) == (claim.job_id, "Send the whole file.")
    desk.complete()
    rest = list(results)
    assert [result.custom_id for result in rest] == ["c", "d"]
    assert list(client.batch_results(batch.batch_id)) == [first, second, *rest]
    assert list(client.batch_results(batch.batch_id, after=2)) == rest
    assert list(client.batch_results(batch.batch_id, after=4)) == []


def test_events_tell_each_change_until_the_end(desk: BatchDesk, client: Any) -> None:
    batch_id = client.submit_batch([SAMPLE] * 2).batch_id
    events = client.batch_events(batch_id)
    assert next(events) == client.batch(batch_id)
    (claim,) = desk.claim(1)
    assert next(events).processing == 1
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
    event = next(events)
    assert (event.completed, event.pending, event.ended, event.progress) == (1, 1, 1, 50)
    desk.complete()
    *_, last = events
    assert (last.status, last.has_ended(), last.ended) == ("completed", True, 2)
    assert list(client.batch_events(batch_id)) == [last]


def test_a_batch_is_waited_for(desk: BatchDesk, client: Any, beside: ThreadPoolExecutor) -> None:
    batch_id = client.submit_batch([SAMPLE] * 2).batch_id
    answer = beside.submit(client.wait_batch, batch_id)
    wait_until(lambda: desk.redis.hexists(keys.batch(batch_id), "watchers"))
    desk.complete(1)
    assert not answer.done()
    desk.complete(1)
    assert (answer.result().status, answer.result().completed) == ("completed", 2)


def test_answers_are_in_the_images_order_and_come_as_soon_as_that_allows(
    desk: BatchDesk, client: Any, beside: ThreadPoolExecutor
) -> None:
    results = client.classify_batch([SAMPLE, SAMPLES / "rocket.jpg", b"text", SAMPLE], top_k=1)
    answer = beside.submit(next, results)
    claims: list[Any] = []
    wait_until(lambda: claims.extend(desk.claim()) or claims)
    one, two, four = [Outcome.completed(claim, PREDICTIONS) for claim in claims]
    desk.ledger.finish([two])
    desk.ledger.finish([one])
    assert answer.result().job_id == claims[0].job_id
    # What is there already is told though the last image is not.
    second, third = next(results), next(results)
    assert (second.job_id, second.filename) == (claims[1].job_id, "rocket.jpg")
    assert third.problem.code == "unsupported-image"
    desk.ledger.finish([four])
    assert [result.job_id for result in results] == [claims[2].job_id]


def test_a_batch_is_classified_by_the_whole_service(
    service: RunningService, create_client: Create
) -> None:
    client = create_client(service.url)
    names = sorted(SAMPLES.glob("*.jpg"))
    results = list(client.classify_batch([*names, b"text"] * 10, top_k=3))
    assert [result.filename for result in results] == [*[name.name for name in names], "image"] * 10
    for name, result in zip(names, results):
        assert result.predictions == client.classify(name, top_k=3).predictions
    assert results[-1].problem.code == "unsupported-image"


# --- Withdrawing ----------------------------------------------------------------------------------


def test_a_batch_is_cancelled_and_keeps_what_was_done(desk: BatchDesk, client: Any) -> None:
    batch_id = client.submit_batch([SAMPLE] * 3).batch_id
    desk.complete(1)
    status = client.cancel_batch(batch_id)
    assert (status.status, status.completed, status.cancelled) == ("cancelled", 1, 2)
    assert client.wait_batch(batch_id) == status
    done, *cancelled = client.batch_results(batch_id)
    assert done.predictions
    assert {result.problem.code for result in cancelled} == {"job-cancelled"}
    with pytest.raises(ProblemError) as raised:
        client.cancel_batch(batch_id)
    assert (raised.value.status, raised.value.code) == (409, "batch-ended")


def test_an_erased_job_leaves_a_result_without_names(client: Any) -> None:
    batch = client.submit_batch([b"text"])
    client.delete(batch.jobs[0].job_id)
    (result,) = client.batch_results(batch.batch_id)
    assert (result.status, result.filename, result.problem.code) == ("erased", None, "job-erased")


def test_a_batch_is_erased_under_who_reads_it(desk: BatchDesk, client: Any) -> None:
    batch_id = client.submit_batch([SAMPLE] * 2).batch_id
    desk.complete(1)
    results = client.batch_results(batch_id)
    next(results)
    assert client.delete_batch(batch_id) is None
    for call in (
        lambda _: next(results),
        client.batch,
        client.wait_batch,
        client.cancel_batch,
        client.delete_batch,
        lambda batch_id: list(client.batch_results(batch_id)),
    ):
        with pytest.raises(ProblemError) as raised:
            call(batch_id)
        assert (raised.value.status, raised.value.code) == (410, "batch-erased")


def test_an_unknown_batch_is_not_found(client: Any) -> None:
    for call in (client.batch, client.wait_batch, client.cancel_batch, client.delete_batch):
        for batch_id in (UNKNOWN_ID, "../health"):
            with pytest.raises(ProblemError, match="ot found"):
                call(batch_id)
    for stream in (client.batch_events, client.batch_results):
        with pytest.raises(ProblemError, match="Batch not found"):
            next(stream(UNKNOWN_ID))


# --- When connections break and services are busy -------------------------------------------------

ACCEPTED = {
    "batch_id": UNKNOWN_ID,
    "status": "processing",
    "total": 2,
    "jobs": [{"job_id": "one", "filename": "x", "custom_id": None}],
}


@pytest.mark.parametrize(
    "refusal",
    [CUT, refuse(429, SOON), refuse(503, SOON), refuse(409, SOON, "idempotency-key-in-use")],
    ids=["cut", "429", "503", "in-use"],
)
def test_a_batch_is_sent_again_whole_under_the_same_key(
    create_client: Create, refusal: Reply
) -> None:
    with play(refusal, refusal, say(ACCEPTED, 202)) as (url, script):
        client = create_client(url)
        assert client.submit_batch([SAMPLE], ["a"]).batch_id == UNKNOWN_ID
        client.submit_batch([SAMPLE], idempotency_key='my "key"')
        client.submit_batch([SAMPLE])
    first, second, third, own, other = script.sent("idempotency-key")
    assert first == second == third
    assert first and first[0] == first[-1] == '"'
    assert own == r'"my \"key\""'
    assert other != first
    for _, body in script.requests:
        assert SAMPLE.read_bytes() in body
    assert len({len(body) for _, body in script.requests[:3]}) == 1


class Forgetful:
    """The service, but for the first answer to a batch: the connection breaks before its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.batches_sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def lose(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.batches_sent += 1
            if message["type"] == "http.response.body" and self.batches_sent == 1:
                message = message | {"body": b"", "more_body": True}
            await send(message)

        is_upload = scope["type"] == "http" and scope["path"] == "/batches"
        await self._app(scope, receive, lose if is_upload else send)


@pytest.mark.parametrize("call", ["submit_batch", "classify_batch"])
def test_a_batch_whose_answer_was_lost_is_there_once(
    settings: Settings, create_client: Create, beside: ThreadPoolExecutor, call: str
) -> None:
    service = Forgetful(create_app(settings))
    with run_api(service) as url:  # type: ignore[arg-type]
        desk, client = BatchDesk(url, settings), create_client(url)
        images = [SAMPLE, b"text", SAMPLES / "rocket.jpg"]
        if call == "submit_batch":
            batch = client.submit_batch(images, ["a", "b", "c"])
            assert [job.custom_id for job in batch.jobs] == ["a", "b", "c"]
            job_ids = [job.job_id for job in batch.jobs]
        else:
            answer = beside.submit(list, client.classify_batch(images))
            wait_until(lambda: service.batches_sent == 2)
            desk.complete()
            job_ids = [result.job_id for result in answer.result()]
        assert service.batches_sent == 2
        assert len(desk.redis.keys(keys.BATCH + "*")) == 1
        assert {job.job_id for job in client.jobs()} == set(job_ids)
        assert len(job_ids) == 3


def test_a_key_that_no_header_can_hold_is_refused(create_client: Create) -> None:
    with play(say(ACCEPTED, 202)) as (url, script):
        with pytest.raises(ValueError, match="^idempotency_key must consist of printable ASCII"):
            create_client(url).submit_batch([SAMPLE], idempotency_key="caf\u00e9")
    assert not script.requests


def snapshot(version: int, ended: int) -> bytes:
    document = {"batch_id": UNKNOWN_ID, "total": 3, "pending": 3 - ended, "completed": ended}
    document |= dict.fromkeys(("processing", "failed", "cancelled", "progress"), 0)
    document |= {"created_at": TIME, "updated_at": TIME}
    document["status"] = "processing" if ended < 3 else "completed"
    return f"id: {version}\nevent: batch\ndata: {json.dumps(document)}\n\n".encode()


def lines(*names: str) -> Reply:
    documents: list[dict[str, Any]] = [
        {"job_id": name, "custom_id": name, "filename": "\u2028", "status": "completed"}
        | {"predictions": PREDICTIONS}
        for name in names
    ]
    text = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    return Reply(200, text.encode(), {"Content-Type": "application/x-ndjson"})


def test_results_go_on_where_they_broke_off(create_client: Create) -> None:
    kind = {"Content-Type": "text/event-stream"}
    replies = [
        Reply(200, b"retry: 10\n\n" + snapshot(1, 0) + snapshot(2, 1), kind, is_cut=True),
        CUT,
        lines("a", "b"),
        # The second was there already: nobody asks for it again.
        Reply(200, b"retry: 10\n\n" + snapshot(3, 2) + snapshot(4, 3), kind),
        lines("c"),
    ]
    with play(*replies) as (url, script):
        results = list(create_client(url).batch_results(UNKNOWN_ID))
    assert [result.custom_id for result in results] == ["a", "b", "c"]
    assert results[0].filename == "\u2028"
    asked = [request.query_params.get("after") for request, _ in script.requests]
    assert asked == [None, "0", "0", None, "2"]
    assert script.sent("last-event-id")[3] == "2"


def test_says_when_results_are_none(create_client: Create) -> None:
    kind = {"Content-Type": "text/event-stream"}
    with play(Reply(200, snapshot(1, 3), kind), Reply(200, b"hello")) as (url, _):
        with pytest.raises(UnreachableError, match="unknown JSON"):
            list(create_client(url).batch_results(UNKNOWN_ID))


# --- The list of jobs -----------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_page_by_page(desk: BatchDesk, client: Any) -> None:
    refused = client.submit_batch([b"text"] * 110)
    waiting = [client.submit(SAMPLE).job_id for _ in range(2)]
    jobs = list(client.jobs())
    assert [job.job_id for job in jobs[:2]] == waiting[::-1]
    assert {job.job_id for job in jobs[2:]} == {job.job_id for job in refused.jobs}
    assert len(jobs) == 112
    times = [job.created_at for job in jobs]
    assert times == sorted(times, reverse=True)
    assert (jobs[0].status, jobs[0].progress, jobs[0].has_ended()) == ("pending", 0, False)
    assert {job.status for job in client.jobs("failed")} == {"failed"}
    assert [job.job_id for job in client.jobs(status="pending")] == waiting[::-1]
    assert list(client.jobs("completed")) == []
    with pytest.raises(ProblemError, match="status"):
        next(client.jobs("nonsense"))


def test_pages_of_jobs_are_asked_for_when_they_are_needed(create_client: Create) -> None:
    job = {"job_id": "one", "status": "failed", "progress": 100, "updated_at": TIME}
    page = {"jobs": [job | {"created_at": TIME}] * 2, "next_cursor": "a+b"}
    # A page may be empty and not the last.
    replies = [page, {"jobs": [], "next_cursor": "c"}, page | {"next_cursor": None}]
    with play(*map(say, replies)) as (url, script):
        jobs = create_client(url).jobs("failed")
        assert len(list(itertools.islice(jobs, 2))) == 2
        assert len(script.requests) == 1
        assert len(list(jobs)) == 2
    assert [dict(request.query_params) for request, _ in script.requests] == [
        {"limit": "100", "status": "failed"},
        {"limit": "100", "status": "failed", "cursor": "a+b"},
        {"limit": "100", "status": "failed", "cursor": "c"},
    ]
