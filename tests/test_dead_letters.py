"""Dead letters over HTTP, as an operator sees them, over a real Redis. No worker runs here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from httpx2 import Client
from pydantic import SecretStr

from app.core import keys
from app.core.config import (
    AdminSettings,
    DeadSettings,
    PayloadSettings,
    QueueSettings,
    RedisSettings,
    ResultSettings,
    RetrySettings,
    Settings,
)
from app.jobs.job import Answer, DeathReason, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import create_payload_store, payload_folder
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem, png_head
from tests.api_server import run_api
from tests.service import wait_until

TOKEN = "the-admin-tökén, which nobody guesses"
AUTHORIZATION = {b"Authorization": f"Bearer {TOKEN}".encode()}
DEAD_LETTERS = "/admin/dead-letters"
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
ANSWER = Answer("a-model", "1", "torch")
PREDICTIONS = [{"class_name": "cat", "confidence": 0.9}]
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MAX_ATTEMPTS = 2


def create_settings(redis_url: str, **changes: Any) -> Settings:
    """Jobs die after two lost workers, or when they are to be tried again."""
    defaults = {
        "redis": RedisSettings(url=redis_url),
        "queue": QueueSettings(max_attempts=MAX_ATTEMPTS, sweep_seconds=0.1),
        "retry": RetrySettings(limit=0),
        "admin": AdminSettings(token=SecretStr(TOKEN)),
        "result": ResultSettings(cache_entries=0),
    }
    return Settings(**(defaults | changes))


def submit(client: Client, image: bytes | None = None) -> str:
    answer = client.post("/classify", files={"file": image or SAMPLE.read_bytes()})
    assert answer.status_code == 202
    return str(answer.json()["job_id"])


def lose_workers(ledger: RedisLedger, reason: DeathReason = DeathReason.WORKER_LOST) -> None:
    """Lose every worker that takes what waits, until it is given up."""
    for number in range(1, MAX_ATTEMPTS + 1):
        while ledger.claim(f"worker-{number}/7", ANSWER).claims:
            ledger.release(f"worker-{number}/7", reason)
            if number < MAX_ATTEMPTS:
                break


@dataclass
class Office:
    """A running API, an operator's and a stranger's client, and a worker's half of the ledger."""

    settings: Settings
    operator: Client
    stranger: Client
    redis: "redis.Redis"
    ledger: RedisLedger

    def kill(self, image: bytes | None = None) -> str:
        """A job that has lost every worker."""
        job_id = submit(self.stranger, image)
        lose_workers(self.ledger)
        return job_id

    def finish(self, job_id: str) -> None:
        """What a worker does."""
        (claim,) = self.ledger.claim("worker-9/7", ANSWER).claims
        assert claim.job_id == job_id
        self.ledger.finish([Outcome.completed(claim, PREDICTIONS)])

    def status(self, job_id: str) -> int | str:
        answer = self.stranger.get(f"/status/{job_id}")
        return str(answer.json()["status"]) if answer.is_success else answer.status_code

    def total(self) -> int:
        return int(self.operator.get(DEAD_LETTERS).json()["total"])

    def find_payload(self, job_id: str) -> bytes | None:
        return create_payload_store(self.settings, self.redis).read_many([job_id])[0]

    def backlog_bytes(self) -> int:
        return int(self.redis.get(keys.BACKLOG_BYTES) or 0)


@pytest.fixture(params=["files", "redis"])
def settings(clean_redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    return create_settings(
        clean_redis_url, data_dir=tmp_path, payload=PayloadSettings(store=request.param)
    )


@pytest.fixture
def office(settings: Settings) -> Iterator[Office]:
    with (
        run_api(create_app(settings)) as url,
        Client(base_url=url, headers=AUTHORIZATION) as operator,
        Client(base_url=url) as stranger,
        redis.Redis.from_url(settings.redis.url) as connection,
    ):
        yield Office(settings, operator, stranger, connection, RedisLedger(connection, settings))


# --- Looking --------------------------------------------------------------------------------------


def test_a_dead_letter_that_is_retried_while_the_list_is_read_is_left_out(office: Office) -> None:
    job_id = office.kill()
    office.operator.post(f"{DEAD_LETTERS}/{job_id}/retry")
    office.redis.zadd(keys.DEAD, {job_id: 1})  # as the list saw it a moment before
    answer = office.operator.get(DEAD_LETTERS)
    assert (answer.status_code, answer.json()["dead_letters"]) == (200, [])


def test_a_dead_letter_says_why_and_what_was_tried_by_whom_and_when(office: Office) -> None:
    job_id = office.kill()
    document = office.operator.get(DEAD_LETTERS).json()
    assert document["total"] == 1
    (letter,) = document["dead_letters"]
    assert (letter["job_id"], letter["reason"]) == (job_id, "worker_lost")
    assert letter["upload_bytes"] == SAMPLE.stat().st_size
    assert letter["error"]["code"] == "attempts-exhausted" and letter["error"]["detail"]
    first, second = letter["attempts"]
    assert (first["attempt"], first["worker"]) == (1, "worker-1/7")
    assert (second["attempt"], second["worker"]) == (2, "worker-2/7")
    assert first["reason"] == second["reason"] == "worker_lost"
    times = [letter["created_at"], first["started_at"], first["ended_at"]]
    times += [second["started_at"], second["ended_at"], letter["died_at"]]
    assert all(UTC_TIME.fullmatch(time) for time in times)
    assert times == sorted(times)
    assert office.operator.get(f"{DEAD_LETTERS}/{job_id}").json() == letter


def test_a_job_that_was_stopped_in_the_end_timed_out(office: Office) -> None:
    job_id = submit(office.stranger)
    lose_workers(office.ledger, DeathReason.TIMED_OUT)
    assert office.operator.get(f"{DEAD_LETTERS}/{job_id}").json()["reason"] == "timed_out"


def test_what_the_engine_refused_and_what_never_passed_are_told_apart(office: Office) -> None:
    submit(office.stranger)
    submit(office.stranger)
    refused, unlucky = office.ledger.claim("worker-1/7", ANSWER).claims
    error = ("classification-failed", "Submit it again.")
    office.ledger.finish(
        [
            Outcome.unprocessable(refused, *error, "ValueError: not a number"),
            Outcome.retry(unlucky, *error, reason="out_of_memory", delay_ms=1),
        ]
    )
    told = {}
    for claim in (refused, unlucky):
        letter = office.operator.get(f"{DEAD_LETTERS}/{claim.job_id}").json()
        assert letter["error"] == {"code": error[0], "detail": error[1]}
        (attempt,) = letter["attempts"]
        told[letter["reason"]] = attempt["reason"]
    assert told == {
        "unprocessable": "ValueError: not a number",
        "retries_exhausted": "out_of_memory",
    }


def test_the_latest_death_is_listed_first_and_pages_follow_each_other(office: Office) -> None:
    ids = [office.kill() for _ in range(3)]
    pages = [
        office.operator.get(DEAD_LETTERS, params={"limit": 2, "offset": offset}).json()
        for offset in (0, 2, 4)
    ]
    assert [page["total"] for page in pages] == [3, 3, 3]
    listed = [[letter["job_id"] for letter in page["dead_letters"]] for page in pages]
    assert listed == [[ids[2], ids[1]], [ids[0]], []]


def test_a_page_that_can_not_be_meant_is_refused(office: Office) -> None:
    queries = ["limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2"]
    for query in [*queries, "offset=-1", "offset=1e3", "offset=1000000001"]:
        document = assert_problem(
            office.operator.get(f"{DEAD_LETTERS}?{query}"), 422, "invalid-request"
        )
        assert str(document["detail"]).startswith(query.partition("=")[0]), query


def test_other_jobs_are_no_dead_letters(office: Office) -> None:
    waiting = submit(office.stranger)
    assert_problem(office.operator.get(f"{DEAD_LETTERS}/{waiting}"), 404, "dead-letter-not-found")
    assert office.total() == 0


def test_health_counts_them(office: Office) -> None:
    office.kill()
    assert office.stranger.get("/health").json()["dead_letters"] == 1


@pytest.mark.parametrize(
    ("image", "kind"), [(SAMPLE.read_bytes(), "image/jpeg"), (png_head(64, 64), "image/png")]
)
def test_the_image_is_there_as_it_came(office: Office, image: bytes, kind: str) -> None:
    answer = office.operator.get(f"{DEAD_LETTERS}/{office.kill(image)}/upload")
    assert (answer.status_code, answer.content) == (200, image)
    assert answer.headers["content-type"] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["content-security-policy"].startswith("sandbox;")


def test_an_image_that_is_gone_is_told(office: Office) -> None:
    job_id = office.kill()
    office.redis.delete(keys.payload(job_id))
    create_payload_store(office.settings, office.redis).delete_many([job_id])
    answer = office.operator.get(f"{DEAD_LETTERS}/{job_id}/upload")
    assert "upload" in str(assert_problem(answer, 404, "dead-letter-not-found")["detail"])


@pytest.mark.parametrize("settings", ["files"], indirect=True)
def test_an_image_that_can_not_be_read_now_is_not_called_gone(office: Office) -> None:
    job_id = office.kill()
    file = payload_folder(office.settings) / job_id
    file.unlink()
    file.mkdir()
    answer = office.operator.get(f"{DEAD_LETTERS}/{job_id}/upload")
    assert_problem(answer, 503, "service-unavailable")


# --- Retrying -------------------------------------------------------------------------------------


def test_a_retried_dead_letter_keeps_its_id_and_completes(office: Office) -> None:
    job_id = office.kill()
    assert office.status(job_id) == "failed"
    assert office.backlog_bytes() == 0
    answer = office.operator.post(f"{DEAD_LETTERS}/{job_id}/retry")
    assert (answer.status_code, answer.json()) == (202, {"retried": 1})
    assert office.status(job_id) == "pending"
    assert office.total() == 0
    assert office.find_payload(job_id) == SAMPLE.read_bytes()
    assert office.backlog_bytes() == SAMPLE.stat().st_size
    office.finish(job_id)
    assert office.status(job_id) == "completed"
    result = office.stranger.get(f"/result/{job_id}").json()
    assert (result["job_id"], result["predictions"]) == (job_id, PREDICTIONS)
    assert office.backlog_bytes() == 0


def test_a_retried_dead_letter_has_all_its_attempts_again(office: Office) -> None:
    job_id = office.kill()
    office.operator.post(f"{DEAD_LETTERS}/{job_id}/retry")
    lose_workers(office.ledger)
    letter = office.operator.get(f"{DEAD_LETTERS}/{job_id}").json()
    assert [attempt["attempt"] for attempt in letter["attempts"]] == [1, 2, 3, 4]


def test_a_retried_dead_letter_no_longer_expires(office: Office) -> None:
    job_id = office.kill()
    assert office.redis.ttl(keys.job(job_id)) > 0
    office.operator.post(f"{DEAD_LETTERS}/{job_id}/retry")
    assert office.redis.ttl(keys.job(job_id)) == -1
    if office.settings.payload.store == "redis":
        assert office.redis.ttl(keys.payload(job_id)) == -1


def test_all_can_be_retried_at_once(office: Office) -> None:
    ids = [office.kill() for _ in range(3)]
    answer = office.operator.post(f"{DEAD_LETTERS}/retry")
    assert (answer.status_code, answer.json()) == (202, {"retried": 3})
    assert [office.status(job_id) for job_id in ids] == ["pending"] * 3
    assert office.operator.post(f"{DEAD_LETTERS}/retry").json() == {"retried": 0}


# --- Purging, expiring ----------------------------------------------------------------------------


def test_purging_erases_the_job_and_its_image(office: Office) -> None:
    job_id, other = office.kill(), office.kill()
    answer = office.operator.delete(f"{DEAD_LETTERS}/{job_id}")
    assert (answer.status_code, answer.json()) == (200, {"purged": 1})
    assert office.status(job_id) == 404
    assert office.find_payload(job_id) is None
    assert office.total() == 1
    assert office.find_payload(other) is not None


def test_purging_all_spares_jobs_that_are_alive(office: Office) -> None:
    ids = [office.kill() for _ in range(2)]
    alive = submit(office.stranger)
    answer = office.operator.delete(DEAD_LETTERS)
    assert (answer.status_code, answer.json()) == (200, {"purged": 2})
    assert [office.status(job_id) for job_id in ids] == [404, 404]
    assert [office.find_payload(job_id) for job_id in ids] == [None, None]
    assert office.status(alive) == "pending"
    assert office.find_payload(alive) is not None


def test_an_old_dead_letter_is_erased_with_its_image(
    clean_redis_url: str, settings: Settings
) -> None:
    settings = settings.model_copy(update={"dead": DeadSettings(letter_ttl=1)})
    payloads = create_payload_store(settings, redis.Redis.from_url(clean_redis_url))
    with (
        run_api(create_app(settings)) as url,
        Client(base_url=url, headers=AUTHORIZATION) as client,
        redis.Redis.from_url(clean_redis_url) as connection,
    ):
        ledger = RedisLedger(connection, settings)
        job_id = submit(client)
        lose_workers(ledger)

        def is_swept() -> bool:
            _, ended = ledger.sweep()
            payloads.delete_many(ended)
            return job_id in ended

        assert not is_swept()
        assert payloads.read_many([job_id]) == [SAMPLE.read_bytes()]
        wait_until(is_swept, 5)
        assert payloads.read_many([job_id]) == [None]
        assert client.get(DEAD_LETTERS).json() == {"total": 0, "dead_letters": []}
        wait_until(lambda: client.get(f"/status/{job_id}").status_code == 404, 5)


# --- Who may, and what there is -------------------------------------------------------------------

CALLS = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/retry"),
    ("GET", "/{id}"),
    ("DELETE", "/{id}"),
    ("GET", "/{id}/upload"),
    ("POST", "/{id}/retry"),
]


def test_these_are_all_the_calls_there_are(office: Office) -> None:
    paths = office.stranger.get("/openapi.json").json()["paths"]
    calls = {
        (method.upper(), path.removeprefix(DEAD_LETTERS).replace("{job_id}", "{id}"))
        for path, operations in paths.items()
        if path.startswith("/admin")
        for method in operations
    }
    assert calls == set(CALLS)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"],
)
def test_every_call_needs_the_token(office: Office, authorization: str | None) -> None:
    job_id = office.kill()
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    for method, path in CALLS:
        url = DEAD_LETTERS + path.format(id=job_id)
        answer = office.stranger.request(method, url, headers=headers)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert office.total() == 1


@pytest.mark.parametrize("token", [None, SecretStr(""), SecretStr(" \n")])
def test_without_a_token_set_administration_is_closed(
    settings: Settings, token: SecretStr | None
) -> None:
    settings = settings.model_copy(update={"admin": AdminSettings(token=token)})
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        for method, path in CALLS:
            address = DEAD_LETTERS + path.format(id=UNKNOWN_ID)
            for headers in (AUTHORIZATION, {b"Authorization": b"Bearer"}):
                answer = client.request(method, address, headers=headers)
                assert_problem(answer, 403, "admin-closed")


def test_a_line_break_at_the_end_of_the_token_does_not_count(settings: Settings) -> None:
    settings = settings.model_copy(update={"admin": AdminSettings(token=SecretStr(f"{TOKEN}\n"))})
    with run_api(create_app(settings)) as url:
        assert httpx2.get(url + DEAD_LETTERS, headers=AUTHORIZATION).status_code == 200


def test_the_name_of_the_scheme_may_be_written_in_any_case(office: Office) -> None:
    headers = {b"Authorization": f"bearer {TOKEN}".encode()}
    assert office.stranger.get(DEAD_LETTERS, headers=headers).status_code == 200


def test_an_unknown_id_is_no_dead_letter(office: Office) -> None:
    for method, path in CALLS:
        if "{id}" in path:
            answer = office.operator.request(method, DEAD_LETTERS + path.format(id=UNKNOWN_ID))
            assert_problem(answer, 404, "dead-letter-not-found")


def test_what_is_no_id_is_no_address(office: Office) -> None:
    assert_problem(office.operator.get(f"{DEAD_LETTERS}/nonsense"), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "methods"),
    [("", "DELETE, GET, HEAD"), (f"/{UNKNOWN_ID}", "DELETE, GET, HEAD"), ("/retry", "POST")],
)
def test_a_wrong_method_is_told_the_right_ones(office: Office, path: str, methods: str) -> None:
    answer = office.operator.put(DEAD_LETTERS + path)
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == methods
