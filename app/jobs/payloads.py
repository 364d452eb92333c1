"""The port: where an upload waits until its job ends. Adapters: files on one machine, Redis.

The API writes a payload piece by piece through a :class:`PayloadWriter` and lets go of it before
the job is accepted; workers read and erase payloads a batch at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

# Uploads up to this size are written once, whole; larger ones leave memory in pieces of it.
PIECE_BYTES = 1 << 20

# While all uploads together hold more than this in memory, they leave it in small pieces: thousands
# of senders may each stop just before a large one is full.
_MUCH_BYTES = 32 << 20
_SMALL_PIECE_BYTES = 1 << 16


class PayloadWriter(Protocol):
    """Takes one upload.

    Raises :class:`ServiceUnavailableError` or :class:`redis.RedisError` when it can't.
    """

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""

    async def commit(self) -> int:
        """Make the payload readable by workers; returns its size in bytes."""

    async def abort(self) -> None:
        """Erase what was written. Also after a commit, for a job that was not accepted."""


class DiscardingWriter:
    """Keeps nothing: for an upload that is only looked at."""

    async def write(self, chunk: bytes) -> None:
        """Forget the bytes."""

    async def commit(self) -> int:
        """Nothing is stored."""
        return 0

    async def abort(self) -> None:
        """There is nothing to erase."""


class PayloadIntake(Protocol):
    """The API's half of a payload store."""

    def create_writer(self, job_id: str) -> PayloadWriter:
        """Begin an upload."""

    is_in_redis: bool
    """Whether payloads take Redis's memory."""

    def has_room(self) -> bool:
        """Whether the store has room for more, as far as it knows without asking around."""

    async def run(self) -> None:
        """What the store does on its own as long as the API runs; ends when it is cancelled."""

    async def read(self, job_id: str) -> bytes | None:
        """One payload, ``None`` if it is not there.

        Raises :class:`ServiceUnavailableError` when the store can't be read now.
        """

    def delete_many(self, job_ids: Iterable[str]) -> None:
        """Erase payloads whose jobs' records are gone; ids without one are ignored."""


class PayloadStore(Protocol):
    """The worker's half of a payload store."""

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        """Payloads in the order of ``job_ids``; ``None`` for one that is not there.

        Raises :class:`PayloadUnreadableError` when the store can't be read now; Redis, as a store,
        :class:`redis.RedisError`.
        """

    def delete_many(self, job_ids: Iterable[str]) -> None:
        """Erase payloads whose jobs have ended, as far as that is possible now."""

    def belongs_to(self, ledger_id: str) -> bool:
        """Whether all payloads are of this ledger's jobs, as far as is known."""

    def list_ids(self, idle_seconds: float = 0) -> list[str]:
        """The ids of payloads that nothing was added to for so long."""


class PieceMemory:
    """What the uploads of a store hold in memory, in bytes, before it leaves in pieces."""

    def __init__(self) -> None:
        self.held_bytes = 0

    def piece_bytes(self) -> int:
        """How large a piece may become."""
        return PIECE_BYTES if self.held_bytes < _MUCH_BYTES else _SMALL_PIECE_BYTES


class PiecewiseWriter(ABC):
    """Gathers chunks and passes them on in pieces."""

    def __init__(self, memory: PieceMemory) -> None:
        self._memory = memory
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._stored = 0
        self._started = False

    async def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._gathered += len(chunk)
        self._memory.held_bytes += len(chunk)
        if self._gathered >= self._memory.piece_bytes():
            await self._flush(last=False)

    def _take_chunks(self) -> bytes:
        piece = b"".join(self._chunks)
        self._chunks.clear()
        self._memory.held_bytes -= self._gathered
        self._gathered = 0
        return piece

    async def _flush(self, last: bool) -> None:
        piece = self._take_chunks()
        self._started = True
        await self._store(piece, self._stored, last)
        self._stored += len(piece)

    async def commit(self) -> int:
        await self._flush(last=True)
        return self._stored

    async def abort(self) -> None:
        self._take_chunks()
        if self._started:
            await self._erase()

    @abstractmethod
    async def _store(self, piece: bytes, offset: int, last: bool) -> None:
        """Store one piece, ``offset`` bytes behind the start; after the last one all must last."""

    @abstractmethod
    async def _erase(self) -> None:
        """Remove all pieces."""
