"""Idempotency keys in the ledger: bound in the step that accepts the job, to one job only."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.asyncio import Redis as AsyncRedis

from app.core import keys
from app.core.errors import IdempotencyKeyInUseError, QueueFullError, ResultsFullError
from app.jobs.idempotency import BoundKey, IdempotencyKeys, create_batch_fingerprint
from app.jobs.job import Reception
from app.jobs.redis_guard import RedisGuard
from tests.ledger.ledger_under_test import (
    RESULT_SECONDS,
    LedgerUnderTest,
    make_images,
    memory_limit_reached,
)

NAME = "a-key"
KEY = keys.IDEMPOTENCY + NAME
DAY_MS = 24 * 3600 * 1000
BOUND = {"key_name": NAME, "fingerprint": "a-fingerprint"}
BOUND_BATCH = {"key_name": NAME, "fingerprint": create_batch_fingerprint("a-digest")}


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
        assert {item.id for item in found if item} == {winner}
        verdicts = list(pool.map(lambda job_id: under_test.try_to_submit(job_id, **BOUND)[0], ids))
    assert under_test.waiting() == [winner]
    assert verdicts.count(Reception.TAKEN) == len(ids) - 1


def test_a_full_redis_knows_keys_and_takes_no_new_ones(under_test: LedgerUnderTest) -> None:
    under_test.submit("one", **BOUND)
    with memory_limit_reached(under_test.redis):
        assert reserve(under_test, "two") == BoundKey("one", "a-fingerprint")
        with pytest.raises(ResultsFullError):
            with_keys(under_test, lambda names: names.reserve("another-key", "two"))


# --- Batches --------------------------------------------------------------------------------------


def nothing_was_accepted(under_test: LedgerUnderTest) -> bool:
    """Of batches."""
    return not under_test.redis.keys(keys.BATCH + "*") and not under_test.backlog_bytes()


def test_the_script_that_accepts_a_batch_binds_its_key(under_test: LedgerUnderTest) -> None:
    reserve(under_test, "a-batch")
    under_test.submit_batch(make_images(2), "a-batch", **BOUND_BATCH)
    bound = reserve(under_test, "two")
    assert bound == BoundKey("a-batch", BOUND_BATCH["fingerprint"])
    assert bound.is_batch
    assert DAY_MS - 10_000 < under_test.redis.pttl(KEY) <= DAY_MS


def test_a_jobs_key_is_no_batchs(under_test: LedgerUnderTest) -> None:
    under_test.submit("one", **BOUND)
    bound = reserve(under_test, "two")
    assert bound and not bound.is_batch


@pytest.mark.parametrize("is_bound", [True, False])
def test_a_batch_whose_key_has_gone_to_another_is_not_accepted(
    under_test: LedgerUnderTest, is_bound: bool
) -> None:
    if is_bound:
        under_test.submit_batch(make_images(1), "two", **BOUND_BATCH)
        under_test.with_batches(lambda batches: batches.erase("two", "anonymous"))
    else:
        reserve(under_test, "two")
    with pytest.raises(IdempotencyKeyInUseError):
        under_test.submit_batch(make_images(2), "one", **BOUND_BATCH)
    assert nothing_was_accepted(under_test)
    bound = reserve(under_test, "three")
    assert bound and bound.id == "two"


def test_a_job_does_not_get_the_key_of_a_batch(under_test: LedgerUnderTest) -> None:
    under_test.submit_batch(make_images(1), "a-batch", **BOUND_BATCH)
    assert under_test.try_to_submit("one", **BOUND)[0] is Reception.TAKEN
    assert under_test.find("one") is None


def test_a_batch_whose_reply_was_lost_is_answered_the_same(under_test: LedgerUnderTest) -> None:
    images = make_images(3)
    for _ in range(2):
        under_test.submit_batch(images, "a-batch", **BOUND_BATCH)
    assert under_test.waiting() == [image.job_id for image in images]
    bound = reserve(under_test, "two")
    assert bound and bound.id == "a-batch"


def test_a_batch_that_finds_no_room_leaves_its_key_unbound(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=1)
    reserve(under_test, "one")
    with pytest.raises(QueueFullError):
        under_test.submit_batch(make_images(2), "one", **BOUND_BATCH)
    assert reserve(under_test, "two") == BoundKey("one", "")
    assert nothing_was_accepted(under_test)


def test_a_full_redis_neither_accepts_a_batch_nor_binds_its_key(
    under_test: LedgerUnderTest,
) -> None:
    reserve(under_test, "one")
    with memory_limit_reached(under_test.redis), pytest.raises(ResultsFullError):
        under_test.submit_batch(make_images(2), "one", **BOUND_BATCH)
    assert reserve(under_test, "two") == BoundKey("one", "")
    assert nothing_was_accepted(under_test)


def test_of_many_batches_under_one_key_one_is_accepted(under_test: LedgerUnderTest) -> None:
    def submit(batch_id: str) -> bool:
        try:
            under_test.submit_batch(make_images(2), batch_id, **BOUND_BATCH)
        except IdempotencyKeyInUseError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(submit, [f"batch-{number}" for number in range(24)]))
    assert accepted.count(True) == 1
    assert under_test.redis.keys(keys.BATCH + "*") == [
        keys.batch(f"batch-{accepted.index(True)}").encode()
    ]
    assert len(under_test.waiting()) == 2


def test_senders_do_not_share_keys() -> None:
    names = {
        keys.name_idempotency_key(owner, key)
        for owner, key in (("ann", "k"), ("bob", "k"), ("ann", "kk"), ("annk", ""), ("an", "nk"))
    }
    assert len(names) == 5


# --- How many are kept, and how long --------------------------------------------------------------


def bind(under_test: LedgerUnderTest, name: str, owner: str = "anonymous") -> int:
    """How many ms the key is kept under which a job is accepted."""
    fields = {"key_name": name, "fingerprint": "a-fingerprint", "owner": owner}
    assert under_test.try_to_submit(**fields)[0] is Reception.ACCEPTED
    return int(under_test.redis.pttl(keys.IDEMPOTENCY + name))


def test_keys_beyond_the_limit_are_kept_as_long_as_results(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_keys=2)
    kept_ms = [bind(under_test, f"key-{number}") for number in range(3)]
    assert [kept > DAY_MS - 10_000 for kept in kept_ms] == [True, True, False]
    assert RESULT_SECONDS * 1000 - 10_000 < kept_ms[2] <= RESULT_SECONDS * 1000


def test_keys_of_batches_count_too(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_keys=1)
    under_test.submit_batch(make_images(1), **BOUND_BATCH)
    assert bind(under_test, "another-key") <= RESULT_SECONDS * 1000


def test_each_owner_has_keys_of_its_own(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_keys=1)
    bind(under_test, "a-key")
    assert bind(under_test, "another-key", owner="somebody-else") > DAY_MS - 10_000


def test_keys_that_have_expired_no_longer_count(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_keys=1)
    long_ago = under_test.now_ms() // 3_600_000 - 26
    under_test.redis.hset(keys.IDEMPOTENCY_COUNTS + "anonymous", long_ago, 1)
    assert bind(under_test, "a-key") > DAY_MS - 10_000
    assert under_test.redis.hlen(keys.IDEMPOTENCY_COUNTS + "anonymous") == 1
