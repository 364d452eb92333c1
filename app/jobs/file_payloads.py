"""Payloads as files named by job id, in one folder that API and workers share."""

import asyncio
import contextlib
import errno
import logging
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from app.core.errors import ServiceUnavailableError, StorageFullError
from app.core.job_errors import PayloadUnreadableError
from app.jobs.grouped_calls import GroupedCall
from app.jobs.payloads import PayloadWriter, PieceMemory, PiecewiseWriter

logger = logging.getLogger(__name__)

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_APPEND = os.O_WRONLY | os.O_APPEND

# An upload is synced when it is between a half and one second old, about as what Redis writes is
# with appendfsync everysec. Most are gone by then.
_SYNC_SECONDS = 0.5

# Files that wait for the disk together.
_LARGEST_GROUP = 128


class FilePayloads:
    """Both halves of the store.

    ``reserve_bytes``: free space on the disk that uploads leave alone. ``sync_first``: an upload
    is on the disk before :meth:`PayloadWriter.commit` returns, instead of within a second.
    """

    is_in_redis = False

    def __init__(self, folder: Path, reserve_bytes: int = 0, sync_first: bool = False) -> None:
        self._folder = folder
        self._prefix = f"{folder}/"
        self._reserve_bytes = reserve_bytes
        self._sync_first = sync_first
        self._memory = PieceMemory()
        self._unsynced: list[str] = []
        self._sync = GroupedCall(self._sync_group, _LARGEST_GROUP)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def create_writer(self, job_id: str) -> PayloadWriter:
        return _FileWriter(self, job_id, self._memory)

    def path(self, job_id: str) -> str:
        """Where a job's upload is. No ``Path``: making one costs as much as opening the file."""
        return f"{self._prefix}{job_id}"

    async def settle(self, job_id: str) -> None:
        """Bring a whole upload to the disk, now or soon."""
        if self._sync_first:
            await self._sync(job_id)
        else:
            self._unsynced.append(job_id)

    async def run(self) -> None:
        """Bring to the disk what still waits some time after it was uploaded: seldom much."""
        due: list[str] = []
        while True:
            await asyncio.sleep(_SYNC_SECONDS)
            if due:
                try:
                    await asyncio.to_thread(self._write_through, due)
                except OSError as error:
                    logger.error("uploads could not be brought to the disk: %s", error)
            due, self._unsynced = self._unsynced, []

    async def _sync_group(self, job_ids: list[str]) -> list[None]:
        try:
            await asyncio.to_thread(self._write_through, job_ids)
        except OSError as error:
            logger.error("upload not stored: %s", error)
            raise ServiceUnavailableError() from error
        return [None] * len(job_ids)

    def _write_through(self, job_ids: Iterable[str]) -> None:
        found = False
        for path in map(self.path, job_ids):
            # Most are gone by now, and this says so for a fraction of what an exception costs.
            if not os.access(path, os.F_OK):
                continue
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            found = True
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if found:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def has_room(self) -> bool:
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize >= self._reserve_bytes

    async def read(self, job_id: str) -> bytes | None:
        try:
            return await asyncio.to_thread(self._read, job_id)
        except PayloadUnreadableError as error:
            raise ServiceUnavailableError() from error

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        return [self._read(job_id) for job_id in job_ids]

    def _read(self, job_id: str) -> bytes | None:
        try:
            with open(self.path(job_id), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError:
            # A store that is away, say a network drive, looks empty; the job can wait for it.
            if not self._folder.is_dir():
                raise PayloadUnreadableError() from None
            return None
        except OSError as error:
            logger.error("upload not readable: %s", error)
            raise PayloadUnreadableError() from error

    def delete_many(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            try:
                os.unlink(self.path(job_id))
            except FileNotFoundError:
                pass
            except OSError as error:
                # The sweeper tries again.
                logger.error("upload not erased: %s", error)

    def belongs_to(self, ledger_id: str) -> bool:
        """The first ledger that asks has the folder, and another once it is empty."""
        mark = self._folder.with_suffix(".ledger")
        try:
            owner = mark.read_text(encoding="ascii")
        except FileNotFoundError:
            owner = ""
        if owner != ledger_id and not (owner and self.list_ids()):
            mark.write_text(ledger_id, encoding="ascii")
            owner = ledger_id
        return owner == ledger_id

    def list_ids(self, idle_seconds: float = 0) -> list[str]:
        newest = time.time() - idle_seconds
        with os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if _changed_at(entry) <= newest]


def _changed_at(entry: "os.DirEntry[str]") -> float:
    """Seconds since 1970; a file that a worker has just erased is as good as new."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return math.inf


class _FileWriter(PiecewiseWriter):
    def __init__(self, store: FilePayloads, job_id: str, memory: PieceMemory) -> None:
        super().__init__(memory)
        self._payloads = store
        self._job_id = job_id
        self._path = store.path(job_id)

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
            logger.error("upload not stored: %s", error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFullError() if full else ServiceUnavailableError()) from error
        if last:
            await self._payloads.settle(self._job_id)

    async def _erase(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
