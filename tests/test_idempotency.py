"""``Idempotency-Key`` on uploads, as clients see it."""

import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from httpx2 import Response

from app.core import keys
from app.core.config import QueueSettings, ResultSettings, Settings
from app.jobs.job import Outcome
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem
from tests.api_server import run_api
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS
from tests.test_waiting import Desk, desk

__all__ = ["desk"]  # a fixture

OTHER = SAMPLE.with_name("coffee.jpg")
WRITTEN = ("a", "b", "A", '"a b"', '"a,b"', '"a\\"b"', '"a\\\\b"')
KEY = '"8e03978e-40d5-43dd-bc93-6894a57f9324"'


def post(desk: Desk, key: str = KEY, query: str = "", **options: Any) -> Response:
    options = {"files": {"file": SAMPLE.read_bytes()}} | options
    headers = {"Idempotency-Key": key} | options.pop("headers", {})
    return desk.ask("POST", f"/classify{query}", headers=headers, **options).result()


def keys_in(desk: Desk) -> list[bytes]:
    found: list[bytes] = desk.redis.keys(keys.IDEMPOTENCY + "*")
    return found


def test_the_same_upload_begins_one_job(desk: Desk, settings: Settings) -> None:
    first, again, thrice = (post(desk) for _ in range(3))
    assert [answer.status_code for answer in (first, again, thrice)] == [202] * 3
    assert first.json() == again.json() == thrice.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == thrice.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["retry-after"] == "1"
    assert desk.redis.llen(keys.QUEUE) == 1
    assert os.listdir(payload_folder(settings)) == [first.json()["job_id"]]


def test_without_a_key_the_same_upload_begins_another_job(desk: Desk) -> None:
    ids = {desk.post("nothing").result().json()["job_id"] for _ in range(2)}
    assert len(ids) == 2
    assert keys_in(desk) == []


def test_a_repetition_can_wait_for_the_end(desk: Desk) -> None:
    job_id = post(desk).json()["job_id"]
    desk.complete()
    response = post(desk, headers={"Prefer": "wait=10"})
    assert (response.status_code, response.json()["job_id"]) == (200, job_id)
    assert response.json()["predictions"] == PREDICTIONS
    assert response.headers["idempotency-replayed"] == "true"
    assert response.headers["preference-applied"] == "wait=10"
    unhurried = post(desk)
    assert (unhurried.status_code, "retry-after" in unhurried.headers) == (202, False)


def test_a_repetition_answers_the_jobs_failure(desk: Desk) -> None:
    post(desk)
    desk.finish(lambda claim: Outcome.failed(claim, "truncated-image", "Send the whole file."))
    response = post(desk, headers={"Prefer": "wait=10"})
    assert_problem(response, 422, "truncated-image")
    assert response.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    "other",
    [
        {"files": {"file": OTHER.read_bytes()}},
        {"query": "?top_k=3"},
        {"query": "?threshold=0.5"},
    ],
)
def test_a_key_is_for_one_image_and_one_choice(desk: Desk, other: dict[str, Any]) -> None:
    job_id = post(desk).json()["job_id"]
    document = assert_problem(post(desk, **other), 422, "idempotency-key-reused")
    assert document["job_id"] == job_id
    assert desk.redis.llen(keys.QUEUE) == 1
    assert post(desk).json()["job_id"] == job_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"abc"', "abc"),
        ('"a:b/c"', "a:b/c"),
        ("x" * 255, f'"{"x" * 255}"'),
    ],
)
def test_two_ways_to_write_a_key(desk: Desk, one: str, other: str) -> None:
    assert post(desk, one).json() == post(desk, other).json()


def test_different_keys_are_different_requests(desk: Desk) -> None:
    ids = {post(desk, key).json()["job_id"] for key in WRITTEN}
    assert len(ids) == len(WRITTEN)


@pytest.mark.parametrize(
    "key",
    [
        "",
        '""',
        '"',
        '"abc',
        'a"b',
        "a b",
        "a,b",
        '"a\\b"',
        "x" * 256,
        f'"{"x" * 256}"',
        "é",
        "a;b=1",
    ],
)
def test_what_is_no_key_is_refused(desk: Desk, key: str) -> None:
    assert_problem(post(desk, key.encode("latin-1")), 400, "invalid-idempotency-key")
    assert not desk.redis.exists(keys.QUEUE)


def test_two_keys_are_refused(desk: Desk) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    files = {"file": SAMPLE.read_bytes()}
    response = desk.ask("POST", "/classify", files=files, headers=headers).result()
    assert_problem(response, 400, "invalid-idempotency-key")


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"files": {"file": b"no image"}}, 415),
        ({"files": {"other": b"x"}}, 422),
        ({"files": None, "content": b"x"}, 415),
    ],
)
def test_an_upload_that_is_refused_frees_its_key(
    desk: Desk, options: dict[str, Any], status: int
) -> None:
    assert post(desk, **options).status_code == status
    assert keys_in(desk) == []
    response = post(desk)
    assert (response.status_code, "idempotency-replayed" in response.headers) == (202, False)


class SlowSender:
    """A client that stops in the middle of an upload."""

    def __init__(self, url: str, path: str = "/classify") -> None:
        address = urlsplit(url)
        assert address.hostname and address.port
        self._socket = socket.create_connection((address.hostname, address.port))
        body = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            + SAMPLE.read_bytes()
            + b"\r\n--b--\r\n"
        )
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: {KEY}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._rest = body[1000:]
        self._socket.sendall(head.encode() + body[:1000])

    def go_on(self) -> bytes:
        """Send the rest; returns the answer."""
        self._socket.sendall(self._rest)
        with self._socket.makefile("rb") as answer:
            return answer.read()

    def give_up(self) -> None:
        self._socket.close()


@pytest.fixture
def slow_sender(desk: Desk) -> Iterator[SlowSender]:
    sender = SlowSender(desk.url)
    wait_until(lambda: keys_in(desk), 10)
    yield sender
    sender.give_up()


def test_while_the_first_still_arrives_the_second_is_told_to_come_again(
    desk: Desk, slow_sender: SlowSender
) -> None:
    response = post(desk)
    assert_problem(response, 409, "idempotency-key-in-use")
    assert response.headers["retry-after"] == "1"
    assert b" 202 " in slow_sender.go_on().splitlines()[0]
    assert post(desk).headers["idempotency-replayed"] == "true"
    assert desk.redis.llen(keys.QUEUE) == 1


def test_a_sender_that_disappears_frees_its_key(
    desk: Desk, slow_sender: SlowSender, settings: Settings
) -> None:
    slow_sender.give_up()
    wait_until(lambda: not keys_in(desk), 10)
    assert "idempotency-replayed" not in post(desk).headers


def test_a_sender_whose_key_has_gone_to_another_is_told_so(
    desk: Desk, slow_sender: SlowSender, settings: Settings
) -> None:
    """Its process was cut off from Redis for so long that the reservation ran out."""
    desk.redis.delete(*keys_in(desk))
    job_id = post(desk).json()["job_id"]
    answer = slow_sender.go_on()
    assert b" 409 " in answer.splitlines()[0] and b"idempotency-key-in-use" in answer
    assert os.listdir(payload_folder(settings)) == [job_id]
    assert post(desk).json()["job_id"] == job_id


def test_a_full_queue_frees_the_key_and_still_answers_repetitions(settings: Settings) -> None:
    full = settings.model_copy(update={"queue": QueueSettings(max_jobs=1)})
    with run_api(create_app(full)) as url:
        desk = Desk(url, full)
        job_id = post(desk).json()["job_id"]
        assert_problem(post(desk, "another"), 429, "queue-full")
        assert len(keys_in(desk)) == 1
        assert post(desk).json()["job_id"] == job_id


@pytest.mark.parametrize("cache_control", ["", "no-cache", "no-store"])
def test_keys_work_with_and_without_the_cache(settings: Settings, cache_control: str) -> None:
    cached = settings.model_copy(update={"result": ResultSettings()})
    with run_api(create_app(cached)) as url:
        desk = Desk(url, cached)
        headers = {"Cache-Control": cache_control}
        first, again = (post(desk, headers=headers) for _ in range(2))
        assert first.json() == again.json()
        assert_problem(post(desk, query="?top_k=1", headers=headers), 422, "idempotency-key-reused")


def test_an_erased_job_is_not_begun_again(desk: Desk) -> None:
    job_id = post(desk).json()["job_id"]
    assert desk.ask("DELETE", f"/jobs/{job_id}").result().status_code == 204
    assert assert_problem(post(desk), 410, "job-erased")["job_id"] == job_id


def test_a_cancelled_job_is_not_begun_again(desk: Desk) -> None:
    job_id = post(desk).json()["job_id"]
    desk.ask("POST", f"/jobs/{job_id}/cancel").result()
    assert post(desk).json()["job_id"] == job_id
    response = post(desk, headers={"Prefer": "wait=10"})
    assert assert_problem(response, 410, "job-cancelled")["job_id"] == job_id


def test_the_key_of_a_job_that_has_expired_begins_no_other(desk: Desk) -> None:
    job_id = post(desk).json()["job_id"]
    desk.redis.delete(keys.job(job_id))
    for headers in ({}, {"Prefer": "wait=10"}):
        document = assert_problem(post(desk, headers=headers), 410, "job-expired")
        assert document["job_id"] == job_id
        assert "accepted" in document["detail"] and "new key" in document["detail"]
    assert desk.redis.llen(keys.QUEUE) == 1
    assert_problem(post(desk, files={"file": OTHER.read_bytes()}), 422, "idempotency-key-reused")


def test_redis_knows_only_a_digest_of_the_key(desk: Desk) -> None:
    post(desk, "a-secret-perhaps")
    (key,) = keys_in(desk)
    assert b"secret" not in key
    assert 0 < desk.redis.ttl(key) <= 24 * 3600
