"""What becomes of work that is cancelled or erased while a worker process has it."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import redis
from numpy.typing import NDArray
from redis.asyncio import Redis as AsyncRedis

from app.core import keys
from app.core.config import Settings
from app.jobs.job import JobState
from app.jobs.payload_stores import create_payload_intake, create_payload_store
from app.jobs.redis_guard import RedisGuard
from app.jobs.withdrawals import Withdrawals
from app.models.ml_models import LoadedModel
from tests.workplace import HastyClock, OneByOne, Workplace, read_sample


class Interruption(OneByOne):
    """A real engine during whose first call something happens to the jobs."""

    def __init__(self, model: LoadedModel, happen: Callable[[], None]) -> None:
        super().__init__(model)
        self._happen = happen
        self.calls = 0

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls == 1:
            self._happen()
        return super().predict(batch)


@pytest.mark.parametrize("method", ["cancel", "erase"])
def test_what_is_not_wanted_any_more_is_left(
    settings: Settings, model: LoadedModel, method: str
) -> None:
    """Of three jobs the second is withdrawn while the first is being classified."""
    ids: list[str] = []
    engine = Interruption(model, lambda: withdraw(settings, method, ids[1]))
    workplace = Workplace(settings, LoadedModel(model.manifest, engine), HastyClock())
    ids += workplace.submit(*[read_sample("cat.jpg")] * 3)
    workplace.classifier.answer_doorbell()
    assert engine.calls == 2
    first, third = workplace.get(ids[0]), workplace.get(ids[2])
    assert (first.state, third.state) == (JobState.COMPLETED, JobState.COMPLETED)
    if method == "cancel":
        assert workplace.get(ids[1]).state is JobState.CANCELLED
    else:
        assert not workplace.redis.exists(keys.job(ids[1]))
    assert workplace.payloads.read_many(ids) == [None] * 3
    assert workplace.redis.exists(keys.LEASES) == 0


def test_a_decoded_image_that_is_not_wanted_any_more_is_not_classified(
    settings: Settings, model: LoadedModel
) -> None:
    class CancelOnRead:
        """A payload store during whose reading the job is cancelled."""

        def __init__(self) -> None:
            self._store = create_payload_store(settings, redis.Redis.from_url(settings.redis.url))
            self.delete_many = self._store.delete_many
            self.belongs_to = self._store.belongs_to
            self.list_ids = self._store.list_ids

        def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
            payloads = self._store.read_many(job_ids)
            withdraw(settings, "cancel", job_ids[0])
            return payloads

    engine = Interruption(model, lambda: None)
    workplace = Workplace(
        settings, LoadedModel(model.manifest, engine), HastyClock(), CancelOnRead()
    )
    (job_id,) = workplace.submit(read_sample("cat.jpg"))
    workplace.classifier.answer_doorbell()
    assert (workplace.get(job_id).state, engine.calls) == (JobState.CANCELLED, 0)


def withdraw(settings: Settings, method: str, job_id: str) -> None:
    """Cancel or erase a job, as the API does."""

    async def run() -> None:
        client = AsyncRedis.from_url(settings.redis.url)
        guard = RedisGuard()
        payloads = create_payload_intake(settings, client, guard)
        withdrawals = Withdrawals(client, settings, payloads, guard)
        await getattr(withdrawals, method)(job_id, "anonymous")
        await client.aclose()

    asyncio.run(run())
