"""``GET /jobs``: the caller's jobs, newest first, in pages."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from httpx2 import Client

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.main import create_app
from tests.api_client import assert_problem, submit
from tests.api_server import run_api
from tests.ledger.ledger_under_test import LedgerUnderTest
from tests.test_dead_letters import PREDICTIONS


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


def submit_many(client: Client, count: int) -> list[str]:
    """The ids, newest first."""
    return [submit(client).json()["job_id"] for _ in range(count)][::-1]


def list_jobs(client: Client, **query: Any) -> tuple[list[str], str | None]:
    response = client.get("/jobs", params=query)
    assert response.status_code == 200
    document = response.json()
    return [job["job_id"] for job in document["jobs"]], document["next_cursor"]


def list_all(client: Client, **query: Any) -> list[str]:
    """Every page."""
    ids, cursor = list_jobs(client, **query)
    while cursor is not None:
        more, cursor = list_jobs(client, cursor=cursor, **query)
        ids += more
    return ids


def complete_one(settings: Settings) -> str:
    ledger = RedisLedger(redis.Redis.from_url(settings.redis.url), settings)
    first, *others = ledger.claim("w", Answer("a-model", "7", "torch")).claims
    ledger.finish([Outcome.completed(first, PREDICTIONS)])
    ledger.hand_back("w", others)
    return first.job_id


def test_jobs_are_listed_newest_first_as_their_status_shows_them(client: Client) -> None:
    job_ids = submit_many(client, 3)
    document = client.get("/jobs").json()
    assert [job["job_id"] for job in document["jobs"]] == job_ids
    assert document["next_cursor"] is None
    for job in document["jobs"]:
        created_at = job.pop("created_at")
        assert created_at <= job["updated_at"]
        assert job == client.get(f"/status/{job['job_id']}").json()


def test_nobody_has_jobs_before_the_first(client: Client) -> None:
    assert list_jobs(client) == ([], None)


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_pages_hold_every_job_once(client: Client, limit: int) -> None:
    job_ids = submit_many(client, 5)
    assert list_all(client, limit=limit) == job_ids


def test_the_last_page_says_so(client: Client) -> None:
    submit_many(client, 4)
    _, cursor = list_jobs(client, limit=2)
    assert list_jobs(client, limit=2, cursor=cursor)[1] is None


def test_jobs_that_come_meanwhile_move_no_page(client: Client) -> None:
    job_ids = submit_many(client, 4)
    first, cursor = list_jobs(client, limit=2)
    submit(client)
    second, _ = list_jobs(client, limit=2, cursor=cursor)
    assert first + second == job_ids


def test_a_page_goes_on_where_its_last_job_has_expired(client: Client, settings: Settings) -> None:
    job_ids = submit_many(client, 4)
    _, cursor = list_jobs(client, limit=2)
    redis.Redis.from_url(settings.redis.url).delete(keys.job(job_ids[1]))
    assert list_jobs(client, cursor=cursor)[0] == job_ids[2:]


def test_jobs_of_one_moment_are_paged_too(client: Client, settings: Settings) -> None:
    """Two scripts of one millisecond give two jobs the same place in time."""
    submit_many(client, 6)
    connection: Any = redis.Redis.from_url(settings.redis.url)
    members = connection.zrange(keys.jobs("anonymous"), 0, -1)
    connection.zadd(keys.jobs("anonymous"), dict.fromkeys(members, 1_700_000_000_000_000))
    expected = sorted((member.decode() for member in members), reverse=True)
    assert list_all(client, limit=2) == expected


def test_jobs_are_listed_by_status(client: Client, settings: Settings) -> None:
    job_ids = submit_many(client, 3)
    completed = complete_one(settings)
    assert list_all(client, status="completed", limit=1) == [completed]
    pending = [job_id for job_id in job_ids if job_id != completed]
    assert list_all(client, status="pending", limit=1) == pending
    assert list_all(client, status="failed") == []


def test_what_has_expired_leaves_the_list(client: Client, settings: Settings) -> None:
    job_ids = submit_many(client, 3)
    connection: Any = redis.Redis.from_url(settings.redis.url)
    connection.delete(keys.job(job_ids[1]))
    assert list_all(client) == [job_ids[0], job_ids[2]]
    assert connection.zcard(keys.jobs("anonymous")) == 2


def test_a_rare_status_is_found_behind_many_others(client: Client, settings: Settings) -> None:
    (oldest,) = submit_many(client, 1)
    assert complete_one(settings) == oldest
    connection: Any = redis.Redis.from_url(settings.redis.url)
    record = {"state": "pending", "owner": "anonymous", "created": 1, "updated": 1}
    with connection.pipeline() as pipeline:
        for number in range(6_000):
            pipeline.hset(keys.job(f"other-{number}"), mapping=record)
            pipeline.zadd(keys.jobs("anonymous"), {f"other-{number}": 2e15 + number})
        pipeline.execute()
    first, cursor = list_jobs(client, status="completed")
    assert first == [], "nobody waits for a whole list to be searched"
    assert list_jobs(client, status="completed", cursor=cursor) == ([oldest], None)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "many"},
        {"status": "done"},
        {"status": ""},
        {"cursor": ""},
        {"cursor": "not a cursor"},
        {"cursor": "MTIz"},
        {"cursor": "é"},
    ],
)
def test_what_can_not_be_meant_is_refused(client: Client, query: dict[str, str]) -> None:
    document = assert_problem(client.get("/jobs", params=query), 422, "invalid-request")
    assert next(iter(query)) in document["detail"]


def test_each_owner_has_a_list(clean_redis_url: str) -> None:
    under_test = LedgerUnderTest(clean_redis_url)
    under_test.submit("a", owner="ann")
    under_test.submit("b", owner="bob")
    assert under_test.members(keys.jobs("ann")) == ["a"]
    assert under_test.members(keys.jobs("bob")) == ["b"]
    assert under_test.members(keys.OWNERS) == ["ann", "bob"]


def test_the_sweeper_trims_the_lists(clean_redis_url: str) -> None:
    under_test = LedgerUnderTest(clean_redis_url)
    for owner in ("ann", "bob"):
        under_test.submit(f"old-{owner}", owner=owner)
    under_test.submit("waiting", owner="ann")
    ages = {"old-ann": 1, "waiting": 2}
    under_test.redis.zadd(keys.jobs("ann"), ages)
    under_test.redis.zadd(keys.jobs("bob"), {"old-bob": 1})
    under_test.redis.delete(keys.job("old-ann"), keys.job("old-bob"))
    under_test.with_lease(60.0).sweep()
    assert under_test.members(keys.jobs("ann")) == ["waiting"]
    assert under_test.members(keys.OWNERS) == ["ann"]
