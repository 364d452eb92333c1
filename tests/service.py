"""Runs `classifier up` as a user does: one process, its output, its end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("classifier"))
# Choosing an engine takes a while and differs by machine only: done once for all tests.
MODEL_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "models"
# Of the command line, which remembers interrupted runs.
STATE = Path(__file__).parent.parent / ".pytest_cache" / "state"
START_SECONDS = 240  # more than `classifier up` itself gives a start
STOP_SECONDS = 30


def find_free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment with its own Redis, without colours, and with ``variables``.

    Without the result cache: most tests send one image many times and want it classified.
    """
    environment = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
    shared = {
        "NO_COLOR": "1",
        "MODEL_CACHE_DIR": str(MODEL_CACHE),
        "RESULT_CACHE_ENTRIES": "0",
        "XDG_STATE_HOME": str(STATE),
    }
    return environment | shared | variables


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Look every 50 ms until ``condition`` holds; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.05)


class RunningService:
    """A `classifier up` on a free port, ready once constructed. Stopped by :meth:`stop`.

    ``lines`` grows with its output, standard error included. ``launcher`` is what stands before
    the command.
    """

    def __init__(
        self,
        data_dir: Path,
        launcher: Sequence[str] = (),
        host: str = "",
        **environment: str,
    ) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = data_dir
        self.lines: list[str] = []
        data_dir.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [*launcher, COMMAND, "up", "--port", str(self.port), "--data-dir", str(data_dir)]
            + (["--host", host] if host else []),
            cwd=data_dir,  # no .env of the developer's, no model of theirs
            env=clean_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_until(lambda: self.is_ready() or self.process.poll() is not None, START_SECONDS)
            assert self.is_ready(), "\n".join(["classifier up ended:", *self.lines])
        except BaseException:
            self.stop()
            raise

    def is_ready(self) -> bool:
        """Whether it has said so."""
        return any("ready after" in line for line in self.lines)

    def curl_line(self) -> str:
        """The command that it offers to try."""
        return next(line for line in self.lines if line.startswith("curl "))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, unless it has ended already; returns the exit code."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(STOP_SECONDS)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
