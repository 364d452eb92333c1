"""The ledger's Lua scripts as Redis gets them: with the keys' names and the rules filled in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from app.core import keys
from app.core.config import Settings
from app.core.job_errors import (
    DeadlineExceededError,
    JobCancelledError,
    JobFailedError,
    TimedOutError,
    WorkerLostError,
)
from app.jobs.doorbell import BELL_ID, render_message
from app.jobs.job import render_error

_SCRIPTS = Path(__file__).parent / "scripts"
_KEY_NAMES = (
    "JOB",
    "HOLDER",
    "PAYLOAD",
    "JOBS",
    "OWNERS",
    "BATCH",
    "BATCH_JOBS",
    "BATCH_ENDED",
    "ANSWERS",
    "ERASED",
    "IDEMPOTENCY",
    "IDEMPOTENCY_COUNTS",
    "LIVE",
    "WORKER",
    "QUEUE",
    "BULK_QUEUE",
    "BULK_PASSED",
    "DELAYED",
    "DEADLINES",
    "DEAD",
    "LEASES",
    "BACKLOG_JOBS",
    "BACKLOG_BYTES",
    "DRAIN",
    "HISTORY",
    "WORKERS",
    "SWEEPER",
    "FLIGHTS",
    "FOLLOWERS",
    "CACHE",
    "CACHE_USE",
    "CACHE_COUNTS",
    "MODEL",
    "DOORBELLS",
    "BELLS_RUNG",
)


# The ends that scripts find by themselves.
_ERRORS: dict[str, type[JobFailedError]] = {
    "WORKER_LOST": WorkerLostError,
    "TIMED_OUT": TimedOutError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "JOB_CANCELLED": JobCancelledError,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What the scripts go by. The same in every process on one Redis. Times are milliseconds."""

    batch_size: int
    lease: int
    sweep_lock: int
    max_attempts: int
    max_jobs: int
    max_bytes: int
    max_records: int
    max_keys: int
    max_letters: int
    max_letter_bytes: int
    retry_limit: int
    history_length: int
    result_ttl: int
    dead_letter_ttl: int
    payloads_in_redis: bool
    cache_entries: int
    cache_ttl: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The rules that the settings make."""
        queue = settings.queue
        return cls(
            batch_size=queue.batch_size,
            lease=int(queue.lease_seconds * 1000),
            # A lock that ends before the next round keeps one sweeper, and outlives no dead one.
            sweep_lock=max(int(queue.sweep_seconds * 900), 1),
            max_attempts=queue.max_attempts,
            max_jobs=queue.max_jobs,
            max_bytes=queue.max_bytes,
            max_records=settings.result.max_records,
            max_keys=settings.idempotency.max_keys,
            max_letters=settings.dead.max_letters,
            max_letter_bytes=settings.dead.max_bytes,
            retry_limit=settings.retry.limit,
            history_length=queue.history_length,
            result_ttl=settings.result.ttl * 1000,
            dead_letter_ttl=settings.dead.letter_ttl * 1000,
            payloads_in_redis=settings.payload.store == "redis",
            cache_entries=settings.result.cache_entries,
            cache_ttl=settings.result.cache_ttl * 1000,
        )


# What comes before a script: before all, and before some.
_COMMON_PARTS = ("prelude", "sharing", "ending")
_PARTS = {
    "turn": ("finishing", "claiming"),
    "submit": ("keeping", "accepting"),
    "batch": ("keeping", "accepting"),
    "sweep": ("keeping",),
    "relief": ("keeping",),
    "cancel": ("withdrawing",),
    "erase": ("withdrawing",),
    "cancel_batch": ("withdrawing",),
    "erase_batch": ("withdrawing",),
}


@cache
def render_script(name: str, rules: Rules) -> str:
    """A script's text: the parts it needs and itself, with keys' names and rules filled in."""
    texts = {key: getattr(keys, key) for key in _KEY_NAMES}
    texts |= {"BELL": render_message(), "BELL_ID": BELL_ID.replace("-", "%-")}
    texts |= {name: render_error(error.code, error.detail) for name, error in _ERRORS.items()}
    constants = {key: f"[[{text}]]" for key, text in texts.items()}
    constants |= {field.upper(): str(getattr(rules, field)).lower() for field in rules.__slots__}
    files = (*_COMMON_PARTS, *_PARTS.get(name, ()), name)
    return fill_in("\n".join((_SCRIPTS / f"{file}.lua").read_text() for file in files), constants)


def fill_in(script: str, constants: Mapping[str, str]) -> str:
    """Put the constants where a script has their names.

    As local variables they would be bound anew to every function that a script defines, each time
    it runs.
    """
    names = re.compile(rf"\b({'|'.join(constants)})\b")
    return names.sub(lambda match: constants[match[0]], script)
