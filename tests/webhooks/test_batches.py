"""What receivers see when batches end."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from app.core import keys
from app.core.config import AdminSettings, QueueSettings, Settings
from app.jobs.job import Outcome
from app.main import create_app
from tests.api_server import run_api
from tests.batch_desk import IMAGE, BatchDesk
from tests.faults.history import History
from tests.service import wait_until
from tests.test_dead_letters import AUTHORIZATION, PREDICTIONS, TOKEN
from tests.webhooks.post_office import PostOffice, run_sender
from tests.webhooks.receiver import Receiver, run_receiver

BATCH_EVENTS = ("batch.completed", "batch.cancelled")
JOB_EVENTS = ("job.completed", "job.failed", "job.cancelled")


@pytest.fixture
def desk(office: PostOffice) -> BatchDesk:
    """Beside an API without a sender; with one if the test asks for `post_office`, too."""
    return BatchDesk(str(office.client.base_url), office.settings)


def wait_until_all_is_told(office: PostOffice) -> None:
    """Until whatever happened so far is delivered: what did not come by then never will."""
    (newest, _), *_ = office.redis.xrevrange(keys.HISTORY, count=1)
    wait_until(lambda: office.redis.get(keys.WEBHOOK_CURSOR) == newest)
    wait_until(lambda: not office.redis.exists(keys.WEBHOOKS_DUE))


def next_data(receiver: Receiver, kind: str) -> dict[str, Any]:
    """What the next event says, which is of this type."""
    event = receiver.next().event
    assert event["type"] == kind
    data: dict[str, Any] = event["data"]
    return data


def find_ends(desk: BatchDesk) -> list[dict[str, str]]:
    """The entries that the history has of batches."""
    entries = [entry for _, entry in desk.redis.xrange(keys.HISTORY) if b"batch" in entry]
    return [{name.decode(): value.decode() for name, value in entry.items()} for entry in entries]


def test_a_completed_batch_is_told_signed_once_and_as_thin_as_its_counts(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        secret = post_office.register(receiver.url, *BATCH_EVENTS)["secret"]
        batch = desk.submit([IMAGE] * 3 + [b"just text"])
        desk.complete(2)
        desk.complete(2)
        request = receiver.next()
        delivery = post_office.wait_for_end(request.id)
        wait_until_all_is_told(post_office)
        assert receiver.is_quiet()
    request.verify(secret)
    assert request.event == {
        "type": "batch.completed",
        "timestamp": request.event["timestamp"],
        "data": {
            "batch_id": batch["batch_id"],
            "status": "completed",
            "total": 4,
            "completed": 3,
            "failed": 1,
            "cancelled": 0,
        },
    }
    assert request.event["timestamp"] == desk.get(batch)["updated_at"]
    assert (delivery["status"], delivery["type"]) == ("delivered", "batch.completed")
    assert (delivery["batch_id"], delivery["job_id"]) == (batch["batch_id"], None)


def test_a_cancelled_batch_is_told_once_all_of_it_has_ended(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit([IMAGE] * 4)
        claims = desk.claim(2)
        path = f"/batches/{batch['batch_id']}/cancel"
        assert desk.client.post(path).status_code == 202
        wait_until_all_is_told(post_office)
        assert receiver.is_quiet()
        desk.ledger.finish([Outcome.completed(claims[0], PREDICTIONS)])
        desk.ledger.hand_back("w")
        data = next_data(receiver, "batch.cancelled")
    document = desk.get(batch)
    assert data["status"] == document["status"] == "cancelled"
    assert (data["total"], data["completed"], data["cancelled"]) == (4, 1, 3)
    assert data == {name: document[name] for name in data}


def test_a_batch_that_was_cancelled_too_late_is_told_as_completed(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit([IMAGE] * 2)
        claims = desk.claim()
        assert desk.client.post(f"/batches/{batch['batch_id']}/cancel").status_code == 202
        desk.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])
        data = next_data(receiver, "batch.completed")
    assert data["completed"] == 2
    assert desk.get(batch)["status"] == "completed"


def test_jobs_that_were_cancelled_one_by_one_complete_their_batch(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        for job in desk.submit([IMAGE] * 2)["jobs"]:
            desk.client.post(f"/jobs/{job['job_id']}/cancel")
        assert next_data(receiver, "batch.completed")["cancelled"] == 2


def test_a_batch_of_nothing_but_refused_images_is_told(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit([b"text", b"more text"])
        data = next_data(receiver, "batch.completed")
    assert (data["batch_id"], data["failed"]) == (batch["batch_id"], 2)


def test_without_events_named_each_job_is_told_and_the_batch(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as everything, run_receiver() as jobs, run_receiver() as cancelled:
        post_office.register(everything.url)
        post_office.register(jobs.url, *JOB_EVENTS)
        post_office.register(cancelled.url, "batch.cancelled")
        batch = desk.submit([IMAGE] * 3)
        desk.complete()
        ids = {job["job_id"] for job in batch["jobs"]}
        told = [everything.next().event["data"] for _ in range(4)]
        assert {data.get("job_id") for data in told} == ids | {None}
        assert {data.get("batch_id") for data in told} == {batch["batch_id"], None}
        assert {next_data(jobs, "job.completed")["job_id"] for _ in ids} == ids
        wait_until_all_is_told(post_office)
        assert everything.is_quiet() and jobs.is_quiet() and cancelled.is_quiet()


def test_an_event_says_where_the_results_are_if_the_service_knows(
    office: PostOffice, desk: BatchDesk
) -> None:
    service_url = "https://images.example.com"
    webhook = office.settings.webhook.model_copy(update={"service_url": service_url})
    settings = office.settings.model_copy(update={"webhook": webhook})
    with run_sender(settings), run_receiver() as receiver:
        office.register(receiver.url, *BATCH_EVENTS)
        for kind in BATCH_EVENTS:
            path = f"/batches/{desk.submit([IMAGE] * 2)['batch_id']}"
            desk.complete(2 if kind == "batch.completed" else 1)
            desk.client.post(f"{path}/cancel")
            data = next_data(receiver, kind)
            assert data["results_url"] == f"{service_url}{path}/results"
            assert desk.client.get(f"{path}/results").status_code == 200


def test_a_batch_that_is_erased_before_its_end_is_told_as_cancelled(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit([IMAGE] * 3)
        desk.complete(1)
        desk.claim(1)
        path = f"/batches/{batch['batch_id']}"
        assert desk.client.delete(path).status_code == 204
        data = next_data(receiver, "batch.cancelled")
        wait_until_all_is_told(post_office)
        assert receiver.is_quiet()
    assert (data["batch_id"], data["completed"]) == (batch["batch_id"], 1)
    assert (data["total"], data["cancelled"]) == (3, 2)


def test_erasing_a_batch_that_has_ended_is_no_event(
    post_office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit()
        desk.complete()
        next_data(receiver, "batch.completed")
        assert desk.client.delete(f"/batches/{batch['batch_id']}").status_code == 204
        wait_until_all_is_told(post_office)
        assert receiver.is_quiet()
    assert len(find_ends(desk)) == 1


def test_a_batch_ends_again_when_a_dead_letter_of_its_was_retried(settings: Settings) -> None:
    settings = settings.model_copy(update={"admin": AdminSettings(token=SecretStr(TOKEN))})
    with (
        run_api(create_app(settings)) as url,
        run_sender(settings),
        run_receiver() as receiver,
    ):
        desk = BatchDesk(url, settings)
        PostOffice(url, settings).register(receiver.url, *BATCH_EVENTS)
        desk.submit()
        (claim,) = desk.claim()
        desk.ledger.finish([Outcome.unprocessable(claim, "unreadable", "Too dark.", "dark")])
        assert next_data(receiver, "batch.completed")["failed"] == 1
        retry = f"/admin/dead-letters/{claim.job_id}/retry"
        assert desk.client.post(retry, headers=AUTHORIZATION).status_code == 202
        desk.complete()
        data = next_data(receiver, "batch.completed")
    assert (data["completed"], data["failed"]) == (1, 0)


def test_a_late_sender_tells_how_a_batch_ended_though_it_is_gone(
    office: PostOffice, desk: BatchDesk
) -> None:
    with run_receiver() as receiver:
        office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit([IMAGE] * 2)
        desk.complete()
        desk.client.delete(f"/batches/{batch['batch_id']}")
        with run_sender(office.settings):
            data = next_data(receiver, "batch.completed")
    assert (data["batch_id"], data["completed"]) == (batch["batch_id"], 2)


def test_a_batchs_event_is_sent_again_as_it_was(post_office: PostOffice, desk: BatchDesk) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url, *BATCH_EVENTS)
        batch = desk.submit([IMAGE] * 2)
        desk.complete()
        first = receiver.next()
        post_office.wait_for_end(first.id)
        desk.client.delete(f"/batches/{batch['batch_id']}")
        answer = post_office.client.post(f"/webhooks/deliveries/{first.id}/replay")
        assert (answer.status_code, answer.json()["batch_id"]) == (202, batch["batch_id"])
        second = receiver.next()
    assert (second.id, second.body) == (first.id, first.body)


def test_the_history_has_one_entry_for_each_batch_and_none_for_other_jobs(
    office: PostOffice, desk: BatchDesk
) -> None:
    history = History(desk.redis)
    batch = desk.submit([IMAGE] * 3)
    single = office.submit()
    assert find_ends(desk) == []
    while desk.complete():
        pass
    (entry,) = find_ends(desk)
    assert json.loads(entry.pop("counts")) == {
        "total": 3,
        "completed": 3,
        "failed": 0,
        "cancelled": 0,
    }
    named = {"batch": batch["batch_id"], "state": "completed", "owner": "anonymous"}
    assert entry == named
    history.read(desk.redis)
    assert set(history.courses) == {single, *(job["job_id"] for job in batch["jobs"])}
    assert {course.find_fault() for course in history.courses.values()} == {None}


def test_without_a_history_batches_end_all_the_same(settings: Settings) -> None:
    settings = settings.model_copy(update={"queue": QueueSettings(history_length=0)})
    with run_api(create_app(settings)) as url:
        desk = BatchDesk(url, settings)
        batch = desk.submit()
        desk.complete()
        assert desk.get(batch)["status"] == "completed"
        assert not desk.redis.exists(keys.HISTORY)
