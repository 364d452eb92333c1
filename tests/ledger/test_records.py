"""How many records an owner may keep, and when there is room for more."""

import pytest

from app.core import keys
from app.core.errors import ResultsFullError
from app.jobs.job import Reception
from tests.ledger.ledger_under_test import (
    RESULT_SECONDS,
    LedgerUnderTest,
    completed,
    make_images,
)


@pytest.fixture
def under_test(server_url: str) -> LedgerUnderTest:
    """With room for four records of each owner."""
    under_test = LedgerUnderTest(server_url, max_records=4)
    under_test.beat()
    return under_test


def complete(under_test: LedgerUnderTest, count: int) -> list[str]:
    """So many jobs that have ended."""
    job_ids = under_test.submit_many(count)
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    return job_ids


def test_jobs_that_have_ended_count(under_test: LedgerUnderTest) -> None:
    complete(under_test, 3)
    assert under_test.try_to_submit()[0] is Reception.ACCEPTED
    assert under_test.try_to_submit()[0] is Reception.CROWDED


def test_jobs_that_were_answered_at_once_count(under_test: LedgerUnderTest) -> None:
    under_test.submit(content="cat")
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    receptions = [under_test.try_to_submit(content="cat")[0] for _ in range(4)]
    assert receptions == [Reception.ANSWERED] * 3 + [Reception.CROWDED]


def test_refused_images_of_a_batch_count(under_test: LedgerUnderTest) -> None:
    under_test.submit_batch(make_images(3, error='{"code": "empty-file"}'))
    with pytest.raises(ResultsFullError):
        under_test.submit_batch(make_images(2, error='{"code": "empty-file"}'))
    assert len(under_test.redis.keys(keys.BATCH + "*")) == 1


def test_erased_jobs_count_as_long_as_their_marks_are_kept(under_test: LedgerUnderTest) -> None:
    for job_id in complete(under_test, 4):
        under_test.erase(job_id)
    assert under_test.try_to_submit()[0] is Reception.CROWDED


def test_each_owner_has_room_of_its_own(under_test: LedgerUnderTest) -> None:
    complete(under_test, 4)
    assert under_test.try_to_submit(owner="somebody-else")[0] is Reception.ACCEPTED


def test_a_repeated_submit_is_no_other_job(under_test: LedgerUnderTest) -> None:
    *_, last = complete(under_test, 4)
    assert under_test.try_to_submit(last)[0] is Reception.ANSWERED


def test_the_sender_learns_when_the_oldest_expires(under_test: LedgerUnderTest) -> None:
    oldest, *_ = complete(under_test, 4)
    under_test.redis.pexpire(keys.job(oldest), 7_000)
    _, backlog = under_test.try_to_submit()
    assert backlog.relief_seconds == pytest.approx(7, abs=0.5)


def test_jobs_that_wait_have_no_end_yet(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(4)
    _, backlog = under_test.try_to_submit()
    assert backlog.relief_seconds == RESULT_SECONDS


def test_expired_records_make_room_at_once(under_test: LedgerUnderTest) -> None:
    under_test.let_records_expire(*complete(under_test, 4))
    assert under_test.try_to_submit()[0] is Reception.ACCEPTED


def test_lists_shrink_while_they_grow(under_test: LedgerUnderTest) -> None:
    """However fast jobs come, whoever accepts them sweeps out twice as many."""
    under_test.let_records_expire(*complete(under_test, 3))
    under_test.submit_batch(make_images(1, error='{"code": "empty-file"}'))
    assert under_test.redis.zcard(keys.jobs("anonymous")) == 2
