"""Batches as a client sends and reads them, and a hand that does a worker's work."""

import json
from collections.abc import Sequence
from typing import Any

import redis
from httpx2 import Client, Response

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Answer, Claim, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import payload_folder
from tests.api_client import SAMPLE
from tests.test_dead_letters import PREDICTIONS

IMAGE = SAMPLE.read_bytes()


class BatchDesk:
    """The API over a real socket, and a hand that does a worker's work."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.settings = settings
        self.client = Client(base_url=url, timeout=30)
        # Any: redis-py's types allow each answer to be nearly everything.
        self.redis: Any = redis.Redis.from_url(settings.redis.url)
        self.ledger = RedisLedger(self.redis, settings)

    def submit(
        self, images: Sequence[bytes] = (IMAGE,), custom_ids: Sequence[str] = (), query: str = ""
    ) -> dict[str, Any]:
        response = self.post(images, custom_ids, query)
        assert response.status_code == 202, response.text
        document: dict[str, Any] = response.json()
        return document

    def post(
        self,
        images: Sequence[bytes] = (),
        custom_ids: Sequence[str] = (),
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> Response:
        files: list[Any] = [("file", (f"{number}.jpg", data)) for number, data in enumerate(images)]
        files += [("custom_id", (None, text)) for text in custom_ids]
        return self.client.post(f"/batches{query}", files=files, headers=headers)

    def send_archive(
        self,
        archive: bytes,
        custom_ids: Sequence[str] = (),
        headers: dict[str, str] | None = None,
    ) -> Response:
        files: list[Any] = [("archive", ("all.zip", archive))]
        files += [("custom_id", (None, text)) for text in custom_ids]
        return self.client.post("/batches", files=files, headers=headers)

    def assert_nothing_was_accepted(self) -> None:
        assert self.uploads() == set()
        assert self.redis.keys(keys.JOB + "*") == self.redis.keys(keys.BATCH + "*") == []

    def get(self, batch: dict[str, Any]) -> dict[str, Any]:
        response = self.client.get(f"/batches/{batch['batch_id']}")
        assert response.status_code == 200
        document: dict[str, Any] = response.json()
        return document

    def read_lines(self, batch: dict[str, Any], after: int = 0) -> list[dict[str, Any]]:
        response = self.client.get(f"/batches/{batch['batch_id']}/results?after={after}")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.text.splitlines()]

    def claim(self, wanted: int = 4) -> list[Claim]:
        return self.ledger.take_turn((), "w", Answer("a-model", "7", "torch"), wanted).claims

    def complete(self, wanted: int = 4) -> list[str]:
        """Claim some jobs and complete them; their ids."""
        claims = self.claim(wanted)
        self.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])
        return [claim.job_id for claim in claims]

    def uploads(self) -> set[str]:
        return {path.name for path in payload_folder(self.settings).iterdir()}
