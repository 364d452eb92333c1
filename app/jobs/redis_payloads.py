"""Payloads in the ledger's Redis, for workers on several machines.

Until its job is accepted a payload carries an expiry; from then on the ledger's scripts see to it,
in the same step that changes the job. So nothing is ever left behind.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import redis
import redis.asyncio

from app.core import keys
from app.jobs.payloads import PayloadWriter, PieceMemory, PiecewiseWriter
from app.jobs.redis_guard import RedisGuard

# Pieces in one round trip: few enough that nobody waits long for the others'.
_LARGEST_GROUP = 16

# An upload that is broken off, or whose job is not accepted, disappears after this: longer than the
# last image of a batch may take to arrive.
_UNACCEPTED_SECONDS = 3600


class RedisPayloadIntake:
    """The API's half."""

    is_in_redis = True

    def __init__(self, client: "redis.asyncio.Redis", guard: RedisGuard) -> None:
        self._redis = client
        self._guard = guard
        self._memory = PieceMemory()
        self._store = guard.group(self._store_all, _LARGEST_GROUP)

    def create_writer(self, job_id: str) -> PayloadWriter:
        return _RedisWriter(self, keys.payload(job_id), self._memory)

    async def store(self, piece: "KeyPiece") -> None:
        """Store one piece of an upload."""
        await self._store(piece)

    async def erase(self, key: str) -> None:
        """Remove an upload whose job is not accepted."""
        await self._guard.call(lambda: self._redis.unlink(key))

    async def _store_all(self, pieces: list["KeyPiece"]) -> list[None]:
        pipeline = self._redis.pipeline(transaction=False)
        for piece in pieces:
            # Not APPEND: the client repeats a command whose answer was lost.
            pipeline.setrange(piece.key, piece.offset, piece.data)
            pipeline.expire(piece.key, _UNACCEPTED_SECONDS)
        await self._guard.call(pipeline.execute)
        return [None] * len(pieces)

    async def read(self, job_id: str) -> bytes | None:
        answer = await self._guard.call(lambda: self._redis.get(keys.payload(job_id)))
        return cast(bytes | None, answer)

    def has_room(self) -> bool:
        """The ledger's look at Redis's memory answers for both."""
        return True

    async def run(self) -> None:
        await asyncio.Event().wait()

    def delete_many(self, job_ids: Iterable[str]) -> None:
        """Nothing: the script that ended the job has."""


@dataclass(frozen=True, slots=True)
class KeyPiece:
    """Bytes that belong ``offset`` bytes behind the start of a key's value."""

    key: str
    data: bytes
    offset: int


class _RedisWriter(PiecewiseWriter):
    def __init__(self, intake: RedisPayloadIntake, key: str, memory: PieceMemory) -> None:
        super().__init__(memory)
        self._intake = intake
        self._key = key
        self._is_answered = True

    async def _store(self, piece: bytes, offset: int, last: bool) -> None:
        self._is_answered = False
        await self._intake.store(KeyPiece(self._key, piece, offset))
        self._is_answered = True

    async def _erase(self) -> None:
        # A Redis that did not answer is not asked again while the sender waits: the key expires.
        if self._is_answered:
            await self._intake.erase(self._key)


class RedisPayloadStore:
    """The worker's half: one round trip a batch."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        names = [keys.payload(job_id) for job_id in job_ids]
        return cast(list[bytes | None], self._redis.mget(names))

    def delete_many(self, job_ids: Iterable[str]) -> None:
        """Nothing: the script that ended the job has."""

    def belongs_to(self, ledger_id: str) -> bool:
        """Always: they are in the ledger's own Redis."""
        return True

    def list_ids(self, idle_seconds: float = 0) -> list[str]:
        """None: what is not wanted expires."""
        return []
