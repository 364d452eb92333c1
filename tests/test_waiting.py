"""``Prefer: wait``: one request, one answer, woken by the live channel."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import redis
import uvicorn
from httpx2 import Client, Response

from app.core import keys
from app.core.config import ResultSettings, Settings
from app.jobs.job import Answer, Claim, Outcome
from app.jobs.ledger import RedisLedger
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem, submit
from tests.api_server import run_api
from tests.ledger.ledger_under_test import memory_limit_reached
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS

PATIENT = {"Prefer": "wait=30"}


class Desk:
    """The API over a real socket, and a hand that does a worker's work."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        # Any: redis-py's types allow each answer to be nearly everything.
        self.redis: Any = redis.Redis.from_url(settings.redis.url)
        self.ledger = RedisLedger(self.redis, settings)
        self._threads = ThreadPoolExecutor(max_workers=64)

    def ask(self, method: str, path: str, **options: Any) -> "Future[Response]":
        """Send a request without waiting for its answer."""
        return self._threads.submit(httpx2.request, method, self.url + path, timeout=40, **options)

    def post(self, prefer: str = "wait=30") -> "Future[Response]":
        files = {"file": SAMPLE.read_bytes()}
        return self.ask("POST", "/classify", files=files, headers={"Prefer": prefer})

    def claim(self) -> list[Claim]:
        """Claim jobs as soon as there are some."""
        claims: list[Claim] = []
        answer = Answer("a-model", "7", "torch")
        wait_until(lambda: bool(claims.extend(self.ledger.claim("w", answer).claims) or claims), 10)
        return claims

    def finish(self, judge: Callable[[Claim], Outcome]) -> None:
        self.ledger.finish([judge(claim) for claim in self.claim()])

    def complete(self) -> None:
        self.finish(lambda claim: Outcome.completed(claim, PREDICTIONS))

    def wait_until_watched(self, job_id: str) -> None:
        wait_until(lambda: self.redis.hexists(keys.job(job_id), "watchers"), 10)

    def subscriptions(self) -> int:
        return len(self.redis.client_list(_type="pubsub"))


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with run_api(create_app(settings)) as url:
        desk = Desk(url, settings)
        wait_until(lambda: desk.subscriptions() == 1, 10)
        yield desk


def test_an_upload_is_answered_with_its_result(desk: Desk) -> None:
    answer = desk.post()
    desk.complete()
    response = answer.result()
    assert response.status_code == 200
    assert response.json()["predictions"] == PREDICTIONS
    assert response.headers["preference-applied"] == "wait=30"
    fetched = httpx2.get(f"{desk.url}/result/{response.json()['job_id']}")
    assert fetched.json() == response.json()
    assert "preference-applied" not in fetched.headers


def test_a_job_that_takes_longer_is_answered_with_its_id(desk: Desk) -> None:
    response = desk.post("wait=1").result()
    assert (response.status_code, response.json()["status"]) == (202, "pending")
    assert response.headers["location"] == f"/status/{response.json()['job_id']}"
    assert response.headers["preference-applied"] == "wait=1"


def test_a_failed_job_answers_its_problem(desk: Desk) -> None:
    answer = desk.post()
    desk.finish(lambda claim: Outcome.failed(claim, "truncated-image", "Send the whole file."))
    document = assert_problem(answer.result(), 422, "truncated-image")
    assert document["job_id"]
    assert answer.result().headers["preference-applied"] == "wait=30"


@pytest.mark.parametrize("path", ["status", "result"])
def test_following_a_job_can_wait_too(desk: Desk, path: str) -> None:
    job_id = desk.post("nothing").result().json()["job_id"]
    answer = desk.ask("GET", f"/{path}/{job_id}", headers=PATIENT)
    desk.wait_until_watched(job_id)
    desk.complete()
    response = answer.result()
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=30"
    expected = ("status", "completed") if path == "status" else ("predictions", PREDICTIONS)
    assert response.json()[expected[0]] == expected[1]


@pytest.mark.parametrize("path", ["status", "result"])
def test_what_has_ended_is_not_waited_for(desk: Desk, path: str) -> None:
    job_id = desk.post("nothing").result().json()["job_id"]
    desk.complete()
    assert httpx2.get(f"{desk.url}/{path}/{job_id}", headers=PATIENT).status_code == 200


@pytest.mark.parametrize(("path", "status"), [("status", 200), ("result", 202)])
def test_following_a_job_that_takes_longer(desk: Desk, path: str, status: int) -> None:
    job_id = desk.post("nothing").result().json()["job_id"]
    response = httpx2.get(f"{desk.url}/{path}/{job_id}", headers={"Prefer": "wait=1"})
    assert (response.status_code, response.json()["status"]) == (status, "pending")
    assert response.headers["preference-applied"] == "wait=1"


def test_an_unknown_job_is_not_waited_for(desk: Desk) -> None:
    path = "/result/5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11"
    assert_problem(desk.ask("GET", path, headers=PATIENT).result(), 404, "job-not-found")


def test_nobody_waits_longer_than_allowed(settings: Settings) -> None:
    result = ResultSettings(wait_limit_seconds=1)
    with run_api(create_app(settings.model_copy(update={"result": result}))) as url:
        response = Desk(url, settings).post("wait=1000000").result()
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=1")


@pytest.mark.parametrize(
    "prefer",
    ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=²", "respond-async", "=,;"],
)
def test_a_preference_that_makes_no_sense_is_ignored(desk: Desk, prefer: str) -> None:
    response = desk.ask(
        "POST",
        "/classify",
        files={"file": SAMPLE.read_bytes()},
        headers={"Prefer": prefer.encode("latin-1")},
    ).result()
    assert response.status_code == 202
    assert "preference-applied" not in response.headers


@pytest.mark.parametrize(
    "prefer", ['handling="a, wait=9", WAIT = "1"', "respond-async, wait=1; x=y", "wait=1, wait=9"]
)
def test_preferences_are_read_as_the_rfc_has_them(desk: Desk, prefer: str) -> None:
    assert desk.post(prefer).result().headers["preference-applied"] == "wait=1"


def test_many_who_wait_share_one_subscription_and_nobody_polls(desk: Desk) -> None:
    answers = [desk.post() for _ in range(40)]
    wait_until(lambda: desk.redis.llen(keys.QUEUE) == 40, 20)
    assert desk.subscriptions() == 1
    before = desk.redis.info("stats")["total_commands_processed"]
    time.sleep(1)
    assert desk.redis.info("stats")["total_commands_processed"] - before < 10
    while desk.redis.llen(keys.QUEUE):
        desk.complete()
    assert {answer.result().status_code for answer in answers} == {200}


def test_a_job_that_ends_while_the_channel_is_cut_is_noticed(desk: Desk) -> None:
    answer = desk.post()
    claims = desk.claim()
    desk.redis.client_kill_filter(_type="pubsub")
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])
    assert answer.result().status_code == 200


def test_who_waits_when_the_api_stops_still_gets_the_job_id(settings: Settings) -> None:
    """An answer that never came would leave a client without a way to find its job."""
    config = uvicorn.Config(
        create_app(settings), port=0, log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, 10)
    desk = Desk(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", settings)
    answer = desk.post()
    wait_until(lambda: desk.redis.llen(keys.QUEUE) == 1, 10)
    server.should_exit = True
    response = answer.result()
    thread.join()
    assert response.status_code == 202
    assert desk.redis.exists(keys.job(response.json()["job_id"]))


def test_waiting_without_a_live_channel_ends_in_time(settings: Settings) -> None:
    """Redis refuses subscriptions; the job is looked up at the end of the wait."""
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        job_id = submit(client).json()["job_id"]
        desk = Desk(url, settings)
        answer = desk.ask("GET", f"/result/{job_id}", headers={"Prefer": "wait=2"})
        desk.wait_until_watched(job_id)
        desk.redis.hset(keys.job(job_id), "watchers", "nobody")
        desk.complete()
        assert answer.result().status_code == 200


def test_the_live_channel_comes_back_after_redis_was_silent(desk: Desk) -> None:
    answer = desk.post()
    claims = desk.claim()
    desk.redis.client_kill_filter(_type="pubsub")
    # Longer than the API waits for an answer.
    desk.redis.client_pause(2500)
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])
    assert answer.result().status_code == 200
    wait_until(lambda: desk.subscriptions() == 1, 10)


def test_an_accepted_job_is_named_though_redis_has_gone_since(desk: Desk) -> None:
    answer = desk.post("wait=1")
    wait_until(lambda: desk.redis.llen(keys.QUEUE) == 1, 10)
    desk.redis.client_pause(4000)
    response = answer.result()
    assert response.status_code == 202
    assert response.headers["location"] == f"/status/{response.json()['job_id']}"


def test_a_full_redis_still_tells_what_has_ended(desk: Desk) -> None:
    job_id = desk.post("nothing").result().json()["job_id"]
    desk.complete()
    with memory_limit_reached(desk.redis):
        response = httpx2.get(f"{desk.url}/result/{job_id}", headers=PATIENT)
    assert response.status_code == 200
    assert not desk.redis.hexists(keys.job(job_id), "watchers")
