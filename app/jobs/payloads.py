"""Where an upload waits until its job ends: files on one machine, Redis when several share work.

The API writes a payload piece by piece through a :class:`PayloadWriter` and lets go of it before
the job is accepted; workers read and erase payloads a batch at a time.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import redis
import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.core.errors import ServiceUnavailableError
from app.jobs.grouped_calls import GroupedCall

logger = logging.getLogger(__name__)

# Uploads up to this size are written once, whole; larger ones leave memory in pieces of it.
PIECE_BYTES = 1 << 20

# Pieces in one round trip to Redis: few enough that nobody waits long for the others'.
_LARGEST_GROUP = 16

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_APPEND = os.O_WRONLY | os.O_APPEND

# An upload to Redis whose API process died half-way disappears after this.
_UNFINISHED_SECONDS = 600


class PayloadWriter(Protocol):
    """Takes one upload.

    Raises :class:`ServiceUnavailableError` or :class:`redis.RedisError` when it can't.
    """

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""

    async def commit(self) -> None:
        """Make the payload readable by workers."""

    async def abort(self) -> None:
        """Erase what was written. Also after a commit, for a job that was not accepted."""


class PayloadIntake(Protocol):
    """The API's half of a payload store."""

    def create_writer(self, job_id: str) -> PayloadWriter:
        """Begin an upload."""


class PayloadStore(Protocol):
    """The worker's half of a payload store."""

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        """Payloads in the order of ``job_ids``; ``None`` for one that is not there."""

    def delete_many(self, job_ids: Iterable[str]) -> None:
        """Erase payloads; ids without one are ignored."""


class _PiecewiseWriter(ABC):
    """Gathers chunks and passes them on in pieces of :data:`PIECE_BYTES`."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._stored = 0
        self._started = False

    async def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._gathered += len(chunk)
        if self._gathered >= PIECE_BYTES:
            await self._flush(last=False)

    async def _flush(self, last: bool) -> None:
        piece = b"".join(self._chunks)
        self._chunks.clear()
        self._gathered = 0
        self._started = True
        await self._store(piece, self._stored, last)
        self._stored += len(piece)

    async def commit(self) -> None:
        await self._flush(last=True)

    async def abort(self) -> None:
        self._chunks.clear()
        if self._started:
            await self._erase()

    @abstractmethod
    async def _store(self, piece: bytes, offset: int, last: bool) -> None:
        """Store one piece, ``offset`` bytes behind the start; after the last one all must last."""

    @abstractmethod
    async def _erase(self) -> None:
        """Remove all pieces."""


class FilePayloads:
    """Both halves, as files named by job id in one folder that API and workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create_writer(self, job_id: str) -> PayloadWriter:
        return _FileWriter(self._folder / job_id)

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        return [self._read(job_id) for job_id in job_ids]

    def _read(self, job_id: str) -> bytes | None:
        try:
            return (self._folder / job_id).read_bytes()
        except FileNotFoundError:
            return None

    def delete_many(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            (self._folder / job_id).unlink(missing_ok=True)


class _FileWriter(_PiecewiseWriter):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def _store(self, piece: bytes, offset: int, last: bool) -> None:
        # On the event loop: into the page cache this takes less than the hop to a thread and back
        # (docs/decisions/0003-uploads-on-the-event-loop.md).
        try:
            descriptor = os.open(self._path, _APPEND if offset else _CREATE, mode=0o600)
            try:
                unwritten = memoryview(piece)
                while unwritten:
                    unwritten = unwritten[os.write(descriptor, unwritten) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.error("payload not stored: %s", error)
            raise ServiceUnavailableError() from error

    async def _erase(self) -> None:
        self._path.unlink(missing_ok=True)


class RedisPayloadIntake:
    """The API's half, in the ledger's Redis."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._redis = client
        self._store = GroupedCall(self._store_all, _LARGEST_GROUP)

    def create_writer(self, job_id: str) -> PayloadWriter:
        return _RedisWriter(self._redis, keys.payload(job_id), self._store)

    async def _store_all(self, pieces: list["_KeyPiece"]) -> list[None]:
        pipeline = self._redis.pipeline(transaction=False)
        for piece in pieces:
            # Not APPEND: the client repeats a command whose answer was lost.
            pipeline.setrange(piece.key, piece.offset, piece.data)
            if piece.last:
                pipeline.persist(piece.key)
            else:
                pipeline.expire(piece.key, _UNFINISHED_SECONDS)
        await pipeline.execute()
        return [None] * len(pieces)


@dataclass(frozen=True, slots=True)
class _KeyPiece:
    key: str
    data: bytes
    offset: int
    last: bool


class _RedisWriter(_PiecewiseWriter):
    def __init__(
        self, client: "redis.asyncio.Redis", key: str, store: GroupedCall[_KeyPiece, None]
    ) -> None:
        super().__init__()
        self._redis = client
        self._key = key
        self._store_piece = store

    async def _store(self, piece: bytes, offset: int, last: bool) -> None:
        await self._store_piece(_KeyPiece(self._key, piece, offset, last))

    async def _erase(self) -> None:
        await self._redis.delete(self._key)


class RedisPayloadStore:
    """The worker's half, in the ledger's Redis: one round trip a batch."""

    def __init__(self, client: "redis.Redis") -> None:
        self._redis = client

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        names = [keys.payload(job_id) for job_id in job_ids]
        return cast(list[bytes | None], self._redis.mget(names))

    def delete_many(self, job_ids: Iterable[str]) -> None:
        names = [keys.payload(job_id) for job_id in job_ids]
        if names:
            self._redis.unlink(*names)


def payload_folder(settings: Settings) -> Path:
    """Where uploads wait with PAYLOAD_STORE=files."""
    return settings.data_dir / "payloads"


def create_payload_intake(settings: Settings, client: "redis.asyncio.Redis") -> PayloadIntake:
    """The API's half of the store that PAYLOAD_STORE names."""
    if settings.payload.store == "redis":
        return RedisPayloadIntake(client)
    return FilePayloads(payload_folder(settings))


def create_payload_store(settings: Settings, client: "redis.Redis") -> PayloadStore:
    """The worker's half of the store that PAYLOAD_STORE names."""
    if settings.payload.store == "redis":
        return RedisPayloadStore(client)
    return FilePayloads(payload_folder(settings))
