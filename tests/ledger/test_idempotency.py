"""Idempotency keys in the ledger: bound in the step that accepts the job, to one job only."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis as AsyncRedis

from app.core import keys
from app.core.errors import StorageFullError
from app.jobs.idempotency import BoundKey, IdempotencyKeys
from app.jobs.job import Reception
from app.jobs.redis_guard import RedisGuard
from tests.ledger.ledger_under_test import LedgerUnderTest, memory_limit_reached

NAME = "a-key"
KEY = keys.IDEMPOTENCY + NAME
DAY_MS = 24 * 3600 * 1000
BOUND = {"key_name": NAME, "fingerprint": "a-fingerprint"}


def with_keys(under_test: LedgerUnderTest, ask: Any) -> Any:
    async def run() -> Any:
        async with AsyncRedis.from_url(under_test.url) as client:
            return await ask(IdempotencyKeys(client, under_test.settings(), RedisGuard()))

    return asyncio.run(run())


def reserve(under_test: LedgerUnderTest, job_id: str) -> BoundKey | None:
    found: BoundKey | None = with_keys(under_test, lambda names: names.reserve(NAME, job_id))
    return found


def test_a_key_is_reserved_for_one_job(under_test: LedgerUnderTest) -> None:
    assert [reserve(under_test, "one") for _ in range(2)] == [None, None]
    assert reserve(under_test, "two") == BoundKey("one", "")
    assert 0 < under_test.redis.pttl(KEY) <= 15_000


def test_a_reservation_that_is_not_renewed_ends(under_test: LedgerUnderTest) -> None:
    """As when the process is killed that took the upload."""
    reserve(under_test, "one")
    under_test.redis.delete(KEY)
    assert reserve(under_test, "two") is None


def test_the_script_that_accepts_a_job_binds_its_key(under_test: LedgerUnderTest) -> None:
    reserve(under_test, "one")
    assert under_test.try_to_submit("one", **BOUND)[0] is Reception.ACCEPTED
    assert reserve(under_test, "two") == BoundKey("one", "a-fingerprint")
    assert DAY_MS - 10_000 < under_test.redis.pttl(KEY) <= DAY_MS


def test_a_key_whose_reservation_has_run_out_is_bound_all_the_same(
    under_test: LedgerUnderTest,
) -> None:
    assert under_test.try_to_submit("one", **BOUND)[0] is Reception.ACCEPTED
    assert reserve(under_test, "two") == BoundKey("one", "a-fingerprint")


def test_a_job_whose_key_has_gone_to_another_is_not_accepted(under_test: LedgerUnderTest) -> None:
    reserve(under_test, "two")
    assert under_test.try_to_submit("one", **BOUND)[0] is Reception.TAKEN
    assert under_test.find("one") is None
    assert under_test.backlog_bytes() == 0
    assert under_test.try_to_submit("two", **BOUND)[0] is Reception.ACCEPTED


def test_a_submission_whose_reply_was_lost_is_answered_the_same(
    under_test: LedgerUnderTest,
) -> None:
    answers = [under_test.try_to_submit("one", **BOUND)[0] for _ in range(2)]
    assert answers == [Reception.ACCEPTED] * 2
    assert under_test.waiting() == ["one"]


def test_a_job_that_finds_no_room_leaves_its_key_unbound(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=0)
    reserve(under_test, "one")
    assert under_test.try_to_submit("one", **BOUND)[0] is Reception.REFUSED
    assert reserve(under_test, "two") == BoundKey("one", "")


def test_what_goes_wrong_frees_the_key(under_test: LedgerUnderTest) -> None:
    async def fail(names: IdempotencyKeys) -> None:
        await names.reserve(NAME, "one")
        with pytest.raises(ZeroDivisionError):
            async with names.keep(NAME, "one"):
                raise ZeroDivisionError

    with_keys(under_test, fail)
    assert reserve(under_test, "two") is None


def test_what_goes_wrong_after_the_job_was_accepted_frees_nothing(
    under_test: LedgerUnderTest,
) -> None:
    async def fail(names: IdempotencyKeys) -> None:
        with pytest.raises(ZeroDivisionError):
            async with names.keep(NAME, "one"):
                await asyncio.to_thread(under_test.submit, "one", **BOUND)
                raise ZeroDivisionError

    with_keys(under_test, fail)
    assert reserve(under_test, "two") == BoundKey("one", "a-fingerprint")


def test_a_slow_upload_renews_its_reservation(
    under_test: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.idempotency._RENEWAL_SECONDS", 0)

    async def take_long(names: IdempotencyKeys) -> None:
        await names.reserve(NAME, "one")
        under_test.redis.delete(KEY)
        async with names.keep(NAME, "one"), asyncio.timeout(10):
            while not under_test.redis.exists(KEY):
                await asyncio.sleep(0)

    with_keys(under_test, take_long)
    assert reserve(under_test, "two") == BoundKey("one", "")


def test_of_many_at_once_one_gets_the_key(under_test: LedgerUnderTest) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [f"job-{number}" for number in range(24)]
        found = list(pool.map(lambda job_id: reserve(under_test, job_id), ids))
        winner = ids[found.index(None)]
        assert sum(item is None for item in found) == 1
        assert {item.job_id for item in found if item} == {winner}
        verdicts = list(pool.map(lambda job_id: under_test.try_to_submit(job_id, **BOUND)[0], ids))
    assert under_test.waiting() == [winner]
    assert verdicts.count(Reception.TAKEN) == len(ids) - 1


def test_a_full_redis_knows_keys_and_takes_no_new_ones(under_test: LedgerUnderTest) -> None:
    under_test.submit("one", **BOUND)
    with memory_limit_reached(under_test.redis):
        assert reserve(under_test, "two") == BoundKey("one", "a-fingerprint")
        with pytest.raises(StorageFullError):
            with_keys(under_test, lambda names: names.reserve("another-key", "two"))


def test_senders_do_not_share_keys() -> None:
    names = {
        keys.name_idempotency_key(owner, key)
        for owner, key in (("ann", "k"), ("bob", "k"), ("ann", "kk"), ("annk", ""), ("an", "nk"))
    }
    assert len(names) == 5
