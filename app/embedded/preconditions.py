"""What must hold before `classifier up` starts anything; what does not is told in one line."""

import contextlib
import errno
import fcntl
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from redis.exceptions import RedisError

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.core.redaction import redact
from app.core.redis_client import create_client

# What `classifier up` makes in the data folder for nobody else: records with webhooks' secrets, and
# uploads. The cache may be shared.
_PRIVATE_FOLDERS = ("redis", "payloads", "spool")

LOCK_SECONDS = 2.0  # the Redis of an `up` that was killed takes this to put its file in order


def check_port(host: str, port: int) -> None:
    """Raises :class:`ConfigurationError` when the API could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} on {host} is taken: choose another with --port"
        else:
            reason = f"can't listen on {host}, port {port}: {error.strerror}"
        raise ConfigurationError(reason) from None


def check_redis(settings: Settings) -> None:
    """Raises :class:`ConfigurationError` when the Redis of REDIS_URL does not answer."""
    try:
        with create_client(settings.redis) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        where = redact(settings.redis.url)
        raise ConfigurationError(f"Redis at {where} does not answer: {error}") from None


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """Make the folder and hold it for this process and the children that get the descriptor.

    Raises :class:`ConfigurationError` when another holds it, it can't be written, or everybody may
    write there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & stat.S_IWOTH:
            raise ConfigurationError(
                f"every user of this machine may write to the data folder {folder}, and could put "
                "another admin token there: choose another folder, or forbid it with chmod o-w"
            )
        lock = (folder / "up.lock").open("ab")
        for name in _PRIVATE_FOLDERS:
            # A copy or a backup may have made them as open as the umask allows.
            with contextlib.suppress(FileNotFoundError):
                (folder / name).chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"can't write to the data folder {folder}: {error}") from None
    with lock:
        patience = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise ConfigurationError(
                        f"the data folder {folder} is in use by another `classifier up`: "
                        "stop that one or choose another folder with --data-dir"
                    ) from None
                time.sleep(0.05)
        yield lock.fileno()
