"""A worker process's classifier without the worker: real ledger, real payloads, real model."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import numpy as np
import redis
from numpy.typing import NDArray
from redis.asyncio import Redis as AsyncRedis

from app.core import keys
from app.core.config import EngineName, ModelSettings, Settings
from app.jobs.answer_options import DEFAULT_OPTIONS, AnswerOptions
from app.jobs.intake import RedisIntake
from app.jobs.job import Job, Submission
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import create_payload_intake, create_payload_store
from app.jobs.payloads import PayloadStore
from app.jobs.redis_guard import RedisGuard
from app.models.ml_models import LoadedModel, load_model, prepare_model
from app.tasks.classification import BatchClassifier, Clock
from tests.service import MODEL_CACHE

SAMPLES = Path(__file__).parent.parent / "app" / "samples"


class Workplace:
    """One worker process's classifier, and the API's half to feed it."""

    def __init__(
        self,
        settings: Settings,
        model: LoadedModel,
        clock: Clock = time.monotonic,
        payloads: PayloadStore | None = None,
    ) -> None:
        self.settings = settings
        self.redis = redis.Redis.from_url(settings.redis.url)
        self.ledger = RedisLedger(self.redis, settings)
        self.payloads = payloads or create_payload_store(settings, self.redis)
        self.classifier = BatchClassifier(
            "holder", self.ledger, self.payloads, model, settings, clock
        )

    def submit(self, *images: bytes, options: AnswerOptions = DEFAULT_OPTIONS) -> list[str]:
        async def run() -> list[str]:
            client = AsyncRedis.from_url(self.settings.redis.url)
            guard = RedisGuard()
            payloads = create_payload_intake(self.settings, client, guard)
            intake = RedisIntake(client, self.settings, guard)
            ids = []
            for image in images:
                job_id = str(uuid4())
                writer = payloads.create_writer(job_id)
                await writer.write(image)
                size = await writer.commit()
                await intake.submit(Submission(job_id, "anonymous", size, options=options))
                ids.append(job_id)
            await client.aclose()
            return ids

        return asyncio.run(run())

    def get(self, job_id: str) -> Job:
        return Job.from_record(job_id, self.redis.hgetall(keys.job(job_id)))


def read_sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def load_fast_model() -> LoadedModel:
    """The built-in model with the engine that is there everywhere and quick to load."""
    settings = Settings(model=ModelSettings(cache_dir=MODEL_CACHE), engine=EngineName.ONNXRUNTIME)
    return load_model(prepare_model(settings), settings)


class MoodyEngine:
    """A real engine that refuses dark images, alone or in a batch."""

    portion = 8

    def __init__(self, model: LoadedModel) -> None:
        self.name = model.engine.name
        self._engine = model.engine

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        if any(image.mean() < 10 for image in batch):
            raise ValueError("too dark in here")
        return self._engine.predict(batch)


class OneByOne(MoodyEngine):
    """A real engine that takes one image at a time."""

    portion = 1


class HastyClock:
    """Every look at it is long after the last."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1
        return self._now
