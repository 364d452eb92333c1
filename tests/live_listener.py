"""A process that watches jobs, as the API does."""

import json
from typing import Any

import redis

from app.core import keys

NAME = "a-watcher"


class LiveListener:
    """Hears what the scripts tell the channel ``NAME``."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client
        self._channel = client.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(keys.LIVE + NAME)
        self._channel.get_message(timeout=5)

    def watch(self, job_id: str, end_only: bool = False) -> None:
        """Hear of a job from now on."""
        mark = "!" if end_only else ""
        self._redis.hset(keys.job(job_id), "watchers", f"somebody-else! {NAME}{mark}")

    def next_message(self) -> list[tuple[str, dict[str, str]]]:
        """The records in the next message by job id; empty when none comes, or a job is erased."""
        message: Any = self._channel.get_message(timeout=0.3)
        items = json.loads(message["data"]) if message else []
        return [
            (job_id, dict(zip(words[::2], words[1::2], strict=True)) if words else {})
            for job_id, words in items
        ]
