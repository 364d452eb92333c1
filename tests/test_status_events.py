"""``GET /status/{id}/events``: every change as it happens, over real sockets."""

import json
from collections.abc import Iterator
from uuid import uuid4

import httpx2
import pytest

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Outcome, Stage
from app.main import create_app
from tests.api_client import UNKNOWN_ID, assert_problem
from tests.api_server import run_api
from tests.event_source import EventSource
from tests.ledger.ledger_under_test import memory_limit_reached
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS
from tests.test_waiting import PATIENT, Desk


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with run_api(create_app(settings)) as url:
        desk = Desk(url, settings)
        wait_until(lambda: desk.subscriptions() == 1, 10)
        yield desk


@pytest.fixture
def job_id(desk: Desk) -> str:
    return str(desk.post("nothing").result().json()["job_id"])


def listen(desk: Desk, job_id: str, last_event_id: str | None = None) -> EventSource:
    return EventSource(f"{desk.url}/status/{job_id}/events", last_event_id)


def test_every_change_is_an_event_and_the_last_ends_the_stream(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        assert stream.read_status() == ("pending", 0)
        claims = desk.claim()
        assert stream.read_status() == ("processing", 0)
        desk.ledger.report_progress(claims, 20, Stage.DECODING)
        assert stream.read_status() == ("processing", 20)
        desk.ledger.finish([Outcome.completed(claims[0], PREDICTIONS)])
        assert stream.read_status() == ("completed", 100)
        assert stream.read_event() == {}


def test_an_event_is_what_the_status_call_answers(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        assert stream.read_block() == {"retry": "2000"}
        event = stream.read_event()
    status = httpx2.get(f"{desk.url}/status/{job_id}")
    assert json.loads(event["data"]) == status.json()
    assert event["event"] == "status"
    assert status.headers["etag"] == f'"{event["id"]}"'


def test_a_stream_is_neither_stored_nor_held_back_on_the_way(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        headers = stream.response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    # Though it was asked for: events would wait in the compressor.
    assert "gzip" in stream.response.request.headers["accept-encoding"]
    assert "content-encoding" not in headers
    assert headers["x-request-id"]


def test_a_failed_job_ends_the_stream_too(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        stream.read_event()
        (claim,) = desk.claim()
        assert stream.read_status() == ("processing", 0)
        desk.ledger.finish([Outcome.failed(claim, "truncated-image", "Send the whole file.")])
        assert stream.read_status() == ("failed", 0)
        assert stream.read_event() == {}


def test_what_has_ended_is_one_event(desk: Desk, job_id: str) -> None:
    desk.complete()
    with listen(desk, job_id) as stream:
        assert stream.read_status() == ("completed", 100)
        assert stream.read_event() == {}


def test_who_comes_back_after_the_end_is_told_to_stay_away(desk: Desk, job_id: str) -> None:
    desk.complete()
    with listen(desk, job_id) as stream:
        last = stream.read_event()["id"]
    with listen(desk, job_id, last) as stream:
        assert (stream.response.status_code, stream.read_block()) == (204, {})


def test_who_comes_back_with_the_present_state_hears_of_the_next(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        known = stream.read_event()["id"]
    with listen(desk, job_id, known) as stream:
        assert stream.read_block() == {"retry": "2000"}
        desk.claim()
        assert stream.read_status() == ("processing", 0)


@pytest.mark.parametrize("last_event_id", ["nonsense", ""])
def test_who_comes_back_with_an_old_state_gets_the_present_one(
    desk: Desk, job_id: str, last_event_id: str
) -> None:
    with listen(desk, job_id) as stream:
        old = stream.read_event()["id"]
    desk.claim()
    with listen(desk, job_id, last_event_id or old) as stream:
        assert stream.read_status() == ("processing", 0)


@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "no-uuid"])
def test_an_unknown_job_is_not_found(desk: Desk, job_id: str) -> None:
    assert_problem(httpx2.get(f"{desk.url}/status/{job_id}/events"), 404, "job-not-found")


def test_head_tells_whether_there_is_something_to_follow(desk: Desk, job_id: str) -> None:
    response = httpx2.head(f"{desk.url}/status/{job_id}/events")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert httpx2.head(f"{desk.url}/status/{uuid4()}/events").status_code == 404


def test_many_listeners_share_one_registration_and_all_hear(desk: Desk, job_id: str) -> None:
    streams = [listen(desk, job_id) for _ in range(150)]
    assert {stream.read_status() for stream in streams} == {("pending", 0)}
    assert len(desk.redis.hget(keys.job(job_id), "watchers").split()) == 1
    assert desk.subscriptions() == 1
    desk.complete()
    for stream in streams:
        assert stream.read_to_end()[-1] == ("completed", 100)
        stream.__exit__()


def test_waiting_and_listening_to_one_job_go_together(desk: Desk) -> None:
    answer = desk.post()
    wait_until(lambda: desk.redis.llen(keys.QUEUE) == 1, 10)
    job_id = desk.redis.lindex(keys.QUEUE, 0).decode()
    with listen(desk, job_id) as stream:
        stream.read_event()
        second = desk.ask("GET", f"/result/{job_id}", headers=PATIENT)
        (claim,) = desk.claim()
        assert stream.read_status() == ("processing", 0)
        desk.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
        assert stream.read_status() == ("completed", 100)
    assert (answer.result().status_code, second.result().status_code) == (200, 200)


def test_a_change_while_the_channel_is_cut_is_told(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        stream.read_event()
        desk.redis.client_kill_filter(_type="pubsub")
        # Longer than the API waits for an answer.
        desk.redis.client_pause(2500)
        desk.complete()
        assert stream.read_to_end()[-1] == ("completed", 100)


def test_the_stream_of_an_erased_job_ends(desk: Desk, job_id: str) -> None:
    with listen(desk, job_id) as stream:
        stream.read_event()
        assert httpx2.delete(f"{desk.url}/jobs/{job_id}").status_code == 204
        assert stream.read_event() == {}
    assert_problem(httpx2.get(f"{desk.url}/status/{job_id}/events"), 410, "job-erased")


def test_the_stream_of_a_job_that_vanished_while_the_channel_was_cut_ends(
    desk: Desk, job_id: str
) -> None:
    with listen(desk, job_id) as stream:
        stream.read_event()
        desk.redis.delete(keys.job(job_id))
        desk.redis.client_kill_filter(_type="pubsub")
        assert stream.read_event() == {}


def test_a_full_redis_still_lets_listen(desk: Desk, job_id: str) -> None:
    with memory_limit_reached(desk.redis), listen(desk, job_id) as stream:
        assert stream.read_status() == ("pending", 0)


# --- ETag -----------------------------------------------------------------------------------------


def ask_status(desk: Desk, job_id: str, tags: str) -> httpx2.Response:
    return httpx2.get(f"{desk.url}/status/{job_id}", headers={"If-None-Match": tags})


def test_who_has_the_present_status_gets_nothing_again(desk: Desk, job_id: str) -> None:
    tag = httpx2.get(f"{desk.url}/status/{job_id}").headers["etag"]
    for tags in (tag, f'"other", W/{tag}', "*"):
        response = ask_status(desk, job_id, tags)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag


def test_another_status_has_another_tag(desk: Desk, job_id: str) -> None:
    tags = [httpx2.get(f"{desk.url}/status/{job_id}").headers["etag"]]
    claims = desk.claim()
    tags.append(httpx2.get(f"{desk.url}/status/{job_id}").headers["etag"])
    desk.ledger.report_progress(claims, 20, Stage.DECODING)
    response = ask_status(desk, job_id, ", ".join(tags))
    assert (response.status_code, response.json()["progress"]) == (200, 20)
    assert len({*tags, response.headers["etag"]}) == 3


@pytest.mark.parametrize("tags", ["", "nonsense", '"', "W/"])
def test_what_is_no_tag_is_none_of_ours(desk: Desk, job_id: str, tags: str) -> None:
    assert ask_status(desk, job_id, tags).status_code == 200
