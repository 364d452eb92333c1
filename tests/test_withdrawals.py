"""``POST /jobs/{id}/cancel`` and ``DELETE /jobs/{id}``, as clients see them."""

import os
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from httpx2 import Response

from app.core import keys
from app.core.config import PayloadSettings, ResultSettings, Settings
from app.jobs.job import Answer, Claim, Outcome
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import SAMPLE, UNKNOWN_ID, assert_problem
from tests.api_server import run_api
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS
from tests.test_waiting import PATIENT, Desk, desk

__all__ = ["desk"]  # a fixture


def submit(desk: Desk) -> str:
    return str(desk.post("nothing").result().json()["job_id"])


def call(desk: Desk, method: str, path: str, **options: Any) -> Response:
    return desk.ask(method, path, **options).result()


def cancel(desk: Desk, job_id: str) -> Response:
    return call(desk, "POST", f"/jobs/{job_id}/cancel")


def erase(desk: Desk, job_id: str) -> Response:
    return call(desk, "DELETE", f"/jobs/{job_id}")


def completed(claim: Claim) -> Outcome:
    return Outcome.completed(claim, PREDICTIONS)


# --- Cancelling -----------------------------------------------------------------------------------


def test_a_job_that_waits_is_cancelled_and_says_so(desk: Desk, settings: Settings) -> None:
    job_id = submit(desk)
    response = cancel(desk, job_id)
    assert response.status_code == 200
    document = response.json()
    assert (document["job_id"], document["status"], document["progress"]) == (
        job_id,
        "cancelled",
        0,
    )
    assert call(desk, "GET", f"/status/{job_id}").json() == document
    result = assert_problem(call(desk, "GET", f"/result/{job_id}"), 410, "job-cancelled")
    assert result["job_id"] == job_id
    assert os.listdir(payload_folder(settings)) == []


def test_a_job_that_a_worker_has_is_cancelled_by_it(desk: Desk) -> None:
    job_id = submit(desk)
    (claim,) = desk.claim()
    response = cancel(desk, job_id)
    assert (response.status_code, response.json()["status"]) == (202, "processing")
    assert response.headers["location"] == f"/status/{job_id}"
    desk.ledger.finish([Outcome.cancelled(claim)])
    assert call(desk, "GET", f"/status/{job_id}").json()["status"] == "cancelled"


def test_a_result_that_comes_first_is_there_all_the_same(desk: Desk) -> None:
    job_id = submit(desk)
    (claim,) = desk.claim()
    assert cancel(desk, job_id).status_code == 202
    desk.ledger.finish([completed(claim)])
    assert call(desk, "GET", f"/result/{job_id}").json()["predictions"] == PREDICTIONS


@pytest.mark.parametrize(
    "judge", [completed, lambda claim: Outcome.failed(claim, "truncated-image", "Send it whole.")]
)
def test_what_has_ended_is_not_cancelled(desk: Desk, judge: Callable[[Claim], Outcome]) -> None:
    job_id = submit(desk)
    desk.finish(judge)
    before = call(desk, "GET", f"/status/{job_id}").json()
    assert assert_problem(cancel(desk, job_id), 409, "job-ended")["job_id"] == job_id
    assert call(desk, "GET", f"/status/{job_id}").json() == before


def test_a_cancelled_job_is_not_cancelled_again(desk: Desk) -> None:
    job_id = submit(desk)
    cancel(desk, job_id)
    assert_problem(cancel(desk, job_id), 409, "job-ended")


def test_who_waits_for_a_job_hears_that_it_was_cancelled(desk: Desk) -> None:
    uploader = desk.post()
    wait_until(lambda: desk.redis.llen(keys.QUEUE) == 1, 10)
    job_id = desk.redis.lindex(keys.QUEUE, 0).decode()
    follower = desk.ask("GET", f"/result/{job_id}", headers=PATIENT)
    assert cancel(desk, job_id).status_code == 200
    for answer in (uploader, follower):
        document = assert_problem(answer.result(), 410, "job-cancelled")
        assert document["job_id"] == job_id
    assert uploader.result().headers["preference-applied"] == "wait=30"


# --- Erasing --------------------------------------------------------------------------------------


def leave(desk: Desk) -> None:
    pass


def be_claimed(desk: Desk) -> None:
    desk.claim()


def be_completed(desk: Desk) -> None:
    desk.complete()


def die(desk: Desk) -> None:
    desk.finish(lambda claim: Outcome.unprocessable(claim, "classification-failed", "no", "why"))


@pytest.mark.parametrize("come_so_far", [leave, be_claimed, be_completed, die])
def test_an_erased_job_is_gone_with_its_image(
    desk: Desk, settings: Settings, come_so_far: Callable[[Desk], None]
) -> None:
    job_id = submit(desk)
    come_so_far(desk)
    response = erase(desk, job_id)
    assert (response.status_code, response.content) == (204, b"")
    assert os.listdir(payload_folder(settings)) == []
    assert not desk.redis.exists(keys.job(job_id))
    for path in (f"/status/{job_id}", f"/result/{job_id}"):
        for headers in ({}, PATIENT):
            document = assert_problem(call(desk, "GET", path, headers=headers), 410, "job-erased")
            assert document["job_id"] == job_id
    assert_problem(cancel(desk, job_id), 410, "job-erased")
    assert_problem(erase(desk, job_id), 410, "job-erased")


def test_its_id_is_forgotten_with_the_mark(desk: Desk, settings: Settings) -> None:
    job_id = submit(desk)
    erase(desk, job_id)
    assert 0 < desk.redis.ttl(keys.erased(job_id)) <= settings.result.ttl
    desk.redis.delete(keys.erased(job_id))
    assert_problem(call(desk, "GET", f"/status/{job_id}"), 404, "job-not-found")


@pytest.mark.parametrize("come_so_far", [leave, be_claimed])
@pytest.mark.parametrize("path", ["status", "result"])
def test_who_waits_for_a_job_hears_that_it_was_erased(
    desk: Desk, path: str, come_so_far: Callable[[Desk], None]
) -> None:
    job_id = submit(desk)
    come_so_far(desk)
    answer = desk.ask("GET", f"/{path}/{job_id}", headers=PATIENT)
    desk.wait_until_watched(job_id)
    erase(desk, job_id)
    assert assert_problem(answer.result(), 410, "job-erased")["job_id"] == job_id


def test_so_does_who_waits_since_the_upload(desk: Desk) -> None:
    answer = desk.post()
    wait_until(lambda: desk.redis.llen(keys.QUEUE) == 1, 10)
    job_id = desk.redis.lindex(keys.QUEUE, 0).decode()
    erase(desk, job_id)
    assert assert_problem(answer.result(), 410, "job-erased")["job_id"] == job_id


def test_who_waits_hears_it_though_the_channel_is_cut(desk: Desk) -> None:
    job_id = submit(desk)
    answer = desk.ask("GET", f"/result/{job_id}", headers={"Prefer": "wait=2"})
    desk.wait_until_watched(job_id)
    desk.redis.client_kill_filter(_type="pubsub")
    erase(desk, job_id)
    assert_problem(answer.result(), 410, "job-erased")


def test_an_image_whose_job_was_erased_is_classified_anew(settings: Settings) -> None:
    cached = settings.model_copy(update={"result": ResultSettings()})
    with run_api(create_app(cached)) as url:
        desk = Desk(url, cached)
        answer = Answer("a-model", "7", "torch", "identity")
        desk.ledger.beat("a-worker", "{}", 60_000, answer.identity)
        job_id = submit(desk)
        (claim,) = desk.ledger.claim("w", answer).claims
        desk.ledger.finish([completed(claim)])
        again = desk.post("nothing").result()
        assert again.headers["cache-status"] == "classifier; hit"
        erase(desk, job_id)
        assert desk.post("nothing").result().headers["cache-status"] == "classifier; fwd=miss"


def test_an_upload_in_redis_is_erased_too(settings: Settings) -> None:
    in_redis = settings.model_copy(update={"payload": PayloadSettings(store="redis")})
    with run_api(create_app(in_redis)) as url:
        desk = Desk(url, in_redis)
        for withdraw in (cancel, erase):
            job_id = submit(desk)
            assert desk.redis.get(keys.payload(job_id)) == SAMPLE.read_bytes()
            withdraw(desk, job_id)
            assert not desk.redis.exists(keys.payload(job_id))


# --- Both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("withdraw", [cancel, erase])
@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "no-uuid"])
def test_what_was_never_accepted_is_not_found(
    desk: Desk, withdraw: Callable[[Desk, str], Response], job_id: str
) -> None:
    assert_problem(withdraw(desk, job_id), 404, "job-not-found")


def test_other_methods_are_named(desk: Desk) -> None:
    response = httpx2.get(f"{desk.url}/jobs/{uuid4()}/cancel")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"
