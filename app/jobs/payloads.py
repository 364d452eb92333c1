"""Where an upload waits until its job ends: files on one machine, Redis when several share work.

The API writes a payload piece by piece through a :class:`PayloadWriter` and lets go of it before
the job is accepted; workers read and erase payloads a batch at a time.
"""

import asyncio
import logging
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

# Pieces that one hop to a thread writes: few enough that nobody waits long for the others'.
_LARGEST_GROUP = 16

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
            await self._flush()

    async def _flush(self) -> None:
        piece = b"".join(self._chunks)
        self._chunks.clear()
        self._gathered = 0
        self._started = True
        await self._store(piece, self._stored)
        self._stored += len(piece)

    async def commit(self) -> None:
        await self._flush()

    async def abort(self) -> None:
        self._chunks.clear()
        if self._started:
            await self._erase()

    @abstractmethod
    async def _store(self, piece: bytes, offset: int) -> None:
        """Store one piece, ``offset`` bytes behind the start."""

    @abstractmethod
    async def _erase(self) -> None:
        """Remove all pieces."""


class FilePayloads:
    """Both halves, as files named by job id in one folder that API and workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._append = GroupedCall(_append_all, _LARGEST_GROUP)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create_writer(self, job_id: str) -> PayloadWriter:
        return _FileWriter(self._folder / job_id, self._append)

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


@dataclass(frozen=True, slots=True)
class _Piece:
    path: Path
    data: bytes
    first: bool


async def _append_all(pieces: list[_Piece]) -> list[None]:
    """Write pieces in a thread: a disk may take its time, an event loop may not."""

    def write() -> list[None]:
        for piece in pieces:
            with piece.path.open("wb" if piece.first else "ab") as file:
                file.write(piece.data)
        return [None] * len(pieces)

    try:
        return await asyncio.to_thread(write)
    except OSError as error:
        logger.error("payload not stored: %s", error)
        raise ServiceUnavailableError() from error


class _FileWriter(_PiecewiseWriter):
    def __init__(self, path: Path, append: GroupedCall[_Piece, None]) -> None:
        super().__init__()
        self._path = path
        self._append = append

    async def _store(self, piece: bytes, offset: int) -> None:
        await self._append(_Piece(self._path, piece, first=offset == 0))

    async def _erase(self) -> None:
        await asyncio.to_thread(self._path.unlink, missing_ok=True)


class RedisPayloadIntake:
    """The API's half, in the ledger's Redis."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._redis = client

    def create_writer(self, job_id: str) -> PayloadWriter:
        return _RedisWriter(self._redis, keys.payload(job_id))


class _RedisWriter(_PiecewiseWriter):
    def __init__(self, client: "redis.asyncio.Redis", key: str) -> None:
        super().__init__()
        self._redis = client
        self._key = key

    async def commit(self) -> None:
        if self._started:
            await super().commit()
            await self._redis.persist(self._key)
        else:
            self._started = True
            await self._redis.set(self._key, b"".join(self._chunks))

    async def _store(self, piece: bytes, offset: int) -> None:
        # Not APPEND: the client repeats a command whose answer was lost.
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.setrange(self._key, offset, piece)
        pipeline.expire(self._key, _UNFINISHED_SECONDS)
        await pipeline.execute()

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
