"""``GET /batches/{id}/events`` and the entity tag: every change of a batch as it happens."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Outcome
from app.main import create_app
from tests.api_client import assert_problem
from tests.api_server import run_api
from tests.batch_desk import IMAGE, BatchDesk
from tests.event_source import EventSource
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS


@pytest.fixture
def desk(settings: Settings) -> Iterator[BatchDesk]:
    with run_api(create_app(settings)) as url:
        desk = BatchDesk(url, settings)
        wait_until(lambda: len(desk.redis.client_list(_type="pubsub")) == 1, 10)
        yield desk


@pytest.fixture
def batch(desk: BatchDesk) -> dict[str, Any]:
    return desk.submit([IMAGE] * 4)


def listen(desk: BatchDesk, batch: dict[str, Any], last_event_id: str | None = None) -> EventSource:
    return EventSource(f"{desk.url}/batches/{batch['batch_id']}/events", last_event_id)


def test_every_change_is_an_event_and_the_last_ends_the_stream(
    desk: BatchDesk, batch: dict[str, Any]
) -> None:
    with listen(desk, batch) as stream:
        assert stream.read_status() == ("processing", 0)
        claims = desk.claim(2)
        document = json.loads(stream.read_event()["data"])
        assert (document["pending"], document["processing"]) == (2, 2)
        desk.ledger.finish([Outcome.completed(claims[0], PREDICTIONS)])
        assert stream.read_status() == ("processing", 25)
        desk.ledger.finish([Outcome.failed(claims[1], "truncated-image", "Send it whole.")])
        assert stream.read_status() == ("processing", 50)
        desk.complete()
        assert stream.read_to_end()[-1] == ("completed", 100)


def test_an_event_is_what_following_the_batch_answers(
    desk: BatchDesk, batch: dict[str, Any]
) -> None:
    with listen(desk, batch) as stream:
        event = stream.read_event()
    response = desk.client.get(f"/batches/{batch['batch_id']}")
    assert json.loads(event["data"]) == response.json()
    assert event["event"] == "batch"
    assert response.headers["etag"] == f'"{event["id"]}"'


def test_an_answer_that_is_known_is_not_sent_again(desk: BatchDesk, batch: dict[str, Any]) -> None:
    path = f"/batches/{batch['batch_id']}"
    tag = desk.client.get(path).headers["etag"]
    response = desk.client.get(path, headers={"If-None-Match": tag})
    assert (response.status_code, response.content) == (304, b"")
    desk.complete(1)
    assert desk.client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_who_comes_back_gets_what_is_new(desk: BatchDesk, batch: dict[str, Any]) -> None:
    with listen(desk, batch) as stream:
        known = stream.read_event()["id"]
    desk.complete(1)
    with listen(desk, batch, known) as stream:
        assert stream.read_status() == ("processing", 25)
    desk.complete()
    with listen(desk, batch, known) as stream:
        last = stream.read_event()
        assert stream.read_event() == {}
    with listen(desk, batch, last["id"]) as stream:
        assert stream.response.status_code == 204


def test_cancelling_is_an_event(desk: BatchDesk, batch: dict[str, Any]) -> None:
    with listen(desk, batch) as stream:
        stream.read_event()
        desk.client.post(f"/batches/{batch['batch_id']}/cancel")
        assert stream.read_to_end() == [("cancelled", 100)]


def test_the_stream_of_an_erased_batch_ends(desk: BatchDesk, batch: dict[str, Any]) -> None:
    with listen(desk, batch) as stream:
        stream.read_event()
        desk.client.delete(f"/batches/{batch['batch_id']}")
        assert stream.read_event() == {}
    gone = httpx2.get(f"{desk.url}/batches/{batch['batch_id']}/events")
    assert_problem(gone, 410, "batch-erased")


def test_an_unknown_batch_has_no_events(desk: BatchDesk) -> None:
    response = desk.client.get("/batches/5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11/events")
    assert_problem(response, 404, "batch-not-found")


def test_a_change_while_the_channel_is_cut_is_told(desk: BatchDesk, batch: dict[str, Any]) -> None:
    with listen(desk, batch) as stream:
        stream.read_event()
        desk.redis.client_kill_filter(_type="pubsub")
        desk.complete()
        assert stream.read_to_end()[-1] == ("completed", 100)


def test_a_batch_that_nobody_listens_to_has_no_watchers(
    desk: BatchDesk, batch: dict[str, Any]
) -> None:
    assert not desk.redis.hexists(keys.batch(batch["batch_id"]), "watchers")


def test_a_head_request_says_that_there_are_events(desk: BatchDesk, batch: dict[str, Any]) -> None:
    response = httpx2.head(f"{desk.url}/batches/{batch['batch_id']}/events")
    assert (response.status_code, response.content) == (200, b"")
