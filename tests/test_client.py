"""The Python client against the real API: both kinds, one set of facts."""

import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.config import Settings
from app.jobs.job import Outcome
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from classifier_client import (
    Classifier,
    NotFinishedError,
    ProblemError,
    UnreachableError,
)
from tests.api_client import SAMPLE
from tests.api_server import run_api
from tests.clients import Create
from tests.service import RunningService, find_free_port
from tests.test_dead_letters import PREDICTIONS
from tests.test_waiting import Desk

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with run_api(create_app(settings)) as url:
        yield Desk(url, settings)


@pytest.fixture
def client(desk: Desk, create_client: Create) -> Any:
    return create_client(desk.url)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Where a client waits while the test does the worker's part."""
    with ThreadPoolExecutor() as threads:
        yield threads


def test_classify_sends_an_image_and_waits_for_its_result(
    desk: Desk, client: Any, beside: ThreadPoolExecutor
) -> None:
    answer = beside.submit(client.classify, SAMPLE, timeout=30)
    desk.complete()
    result = answer.result()
    assert [(item.class_name, item.confidence) for item in result.predictions] == [
        (item["class_name"], item["confidence"]) for item in PREDICTIONS
    ]
    assert (result.model.name, result.model.version, result.model.engine) == (
        "a-model",
        "7",
        "torch",
    )
    assert result.created_at <= result.completed_at
    assert result.created_at.utcoffset() is not None
    assert result.document["job_id"] == result.job_id
    assert client.result(result.job_id) == result


@pytest.mark.parametrize(
    "source",
    [SAMPLE, str(SAMPLE), SAMPLE.read_bytes(), io.BytesIO(SAMPLE.read_bytes())],
    ids=["path", "text", "bytes", "file"],
)
def test_images_come_as_paths_bytes_and_open_files(
    desk: Desk, settings: Settings, source: Any
) -> None:
    with Classifier(desk.url) as client:
        client.submit(source)
    (claim,) = desk.claim()
    assert (payload_folder(settings) / claim.job_id).read_bytes() == SAMPLE.read_bytes()


def test_a_job_is_followed_by_its_id(desk: Desk, client: Any, beside: ThreadPoolExecutor) -> None:
    job = client.submit(SAMPLE)
    status = client.status(job.job_id)
    assert (status.job_id, status.status, status.progress) == (job.job_id, "pending", 0)
    assert not status.has_ended()
    with pytest.raises(NotFinishedError):
        client.result(job.job_id)
    answer = beside.submit(client.wait, job.job_id)
    desk.wait_until_watched(job.job_id)
    desk.complete()
    assert answer.result().job_id == job.job_id
    assert client.status(job.job_id).has_ended()


def test_a_job_that_failed_raises_its_problem(
    desk: Desk, client: Any, beside: ThreadPoolExecutor
) -> None:
    answer = beside.submit(client.classify, SAMPLE)
    desk.finish(lambda claim: Outcome.failed(claim, "truncated-image", "Send the whole file."))
    with pytest.raises(ProblemError) as raised:
        answer.result()
    problem = raised.value
    assert (problem.status, problem.code) == (422, "truncated-image")
    assert (problem.title, problem.detail) == ("Truncated image", "Send the whole file.")
    assert client.status(problem.job_id).status == "failed"


def test_a_refusal_raises_its_problem(client: Any) -> None:
    with pytest.raises(ProblemError) as raised:
        client.submit(b"not an image")
    assert (raised.value.status, raised.value.code) == (415, "unsupported-image")
    assert raised.value.job_id is None
    with pytest.raises(ProblemError, match="Job not found"):
        client.status(UNKNOWN_ID)
    with pytest.raises(ProblemError, match="ot found"):
        client.wait("../health")


def test_a_file_that_is_not_there_is_no_matter_of_the_service(client: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.submit(tmp_path / "nowhere.jpg")


def test_an_image_that_is_sent_again_under_its_key_is_no_second_job(client: Any) -> None:
    first = client.submit(SAMPLE, idempotency_key='a "key"')
    assert client.submit(SAMPLE, idempotency_key='a "key"').job_id == first.job_id
    assert client.submit(SAMPLE).job_id != first.job_id
    with pytest.raises(ProblemError) as raised:
        client.submit(SAMPLE, idempotency_key='a "key"', top_k=3)
    assert raised.value.code == "idempotency-key-reused"


def test_a_job_is_cancelled(
    desk: Desk, client: Any, create_client: Create, beside: ThreadPoolExecutor
) -> None:
    job = client.submit(SAMPLE)
    answer = beside.submit(create_client(desk.url).wait, job.job_id)
    desk.wait_until_watched(job.job_id)
    status = client.cancel(job.job_id)
    assert (status.status, status.has_ended()) == ("cancelled", True)
    for call in (answer.result, lambda: client.result(job.job_id)):
        with pytest.raises(ProblemError) as raised:
            call()
        assert (raised.value.code, raised.value.job_id) == ("job-cancelled", job.job_id)
    with pytest.raises(ProblemError) as raised:
        client.cancel(job.job_id)
    assert (raised.value.status, raised.value.code) == (409, "job-ended")


def test_a_job_is_erased(client: Any) -> None:
    job = client.submit(SAMPLE)
    assert client.delete(job.job_id) is None
    for call in (client.status, client.result, client.delete):
        with pytest.raises(ProblemError) as raised:
            call(job.job_id)
        assert (raised.value.status, raised.value.code) == (410, "job-erased")


def test_events_tell_each_change_until_the_end(desk: Desk, client: Any) -> None:
    job = client.submit(SAMPLE)
    events = client.events(job.job_id)
    first = next(events)
    assert first == client.status(job.job_id)
    assert first.status == "pending"
    claims = desk.claim()
    assert next(events).status == "processing"
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])
    assert [event.status for event in events] == ["completed"]
    assert [event.progress for event in client.events(job.job_id)] == [100]
    with pytest.raises(ProblemError, match="Job not found"):
        next(client.events(UNKNOWN_ID))


def test_who_stops_listening_leaves_no_connection_behind(desk: Desk, client: Any) -> None:
    events = client.events(client.submit(SAMPLE).job_id)
    next(events)
    assert count_connections(desk.url) == 1
    events.close()
    assert count_connections(desk.url) == 0


def count_connections(url: str) -> int:
    """How many this process has to the service."""
    port = int(url.rpartition(":")[2])
    connections = psutil.Process().net_connections("tcp")
    return sum(
        bool(item.raddr) and item.raddr.port == port and item.status == psutil.CONN_ESTABLISHED
        for item in connections
    )


def test_options_choose_the_answer(service: RunningService, create_client: Create) -> None:
    client = create_client(service.url)
    assert len(client.classify(SAMPLE, top_k=2, priority="bulk", cancel_after=60).predictions) == 2
    assert client.classify(SAMPLE, threshold=1).predictions == ()
    with pytest.raises(ProblemError, match="top_k"):
        client.classify(SAMPLE, top_k=1000)


def test_waiting_ends_with_its_time_and_the_job_goes_on(desk: Desk, client: Any) -> None:
    with pytest.raises(NotFinishedError) as raised:
        client.classify(SAMPLE, timeout=1)
    assert isinstance(raised.value, TimeoutError)
    desk.complete()
    assert client.wait(raised.value.job_id, timeout=30).predictions


def test_many_are_answered_in_order_whatever_becomes_of_each(
    service: RunningService, create_client: Create
) -> None:
    sources = [SAMPLE, b"not an image", SAMPLE.read_bytes(), "nowhere.jpg"] * 5
    outcomes = list(create_client(service.url).classify_many(iter(sources), concurrency=3))
    assert [outcome.source for outcome in outcomes] == sources
    for image, refused, content, unreadable in zip(*[iter(outcomes)] * 4, strict=True):
        assert image.result.predictions == content.result.predictions
        assert image.error is None
        assert refused.error.code == "unsupported-image"
        assert isinstance(unreadable.error, FileNotFoundError)


def test_who_stops_reading_outcomes_sends_no_more(desk: Desk, client: Any) -> None:
    asked = 0

    def sources() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"not an image"

    outcomes = client.classify_many(sources(), concurrency=2)
    next(outcomes)
    outcomes.close()
    assert asked == 3


def test_says_where_no_service_answers(create_client: Create) -> None:
    url = f"http://127.0.0.1:{find_free_port()}"
    client = create_client(url, attempts=2)
    with pytest.raises(UnreachableError, match=f"no classification service at {url}: "):
        client.submit(SAMPLE)
    with pytest.raises(UnreachableError):
        list(client.events(UNKNOWN_ID))
    with pytest.raises(UnreachableError):
        client.health()


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://127.0.0.1"])
def test_says_what_is_no_address(create_client: Create, url: str) -> None:
    with pytest.raises(UnreachableError):
        create_client(url).health()


def test_health_tells_how_the_service_is(client: Any) -> None:
    health = client.health()
    assert (health.status, health.redis_connected, health.workers_available) == (
        "degraded",
        True,
        0,
    )
    assert health.reasons


def test_it_brings_nothing_of_the_service_along() -> None:
    code = "import classifier_client, sys; print(*{name.split('.')[0] for name in sys.modules})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(answer.stdout.split())
    assert "httpx2" in loaded
    assert not loaded & {"app", "torch", "fastapi", "pydantic", "redis", "celery"}
    assert (Path(__file__).parents[1] / "classifier_client" / "py.typed").exists()
