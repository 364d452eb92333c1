"""The load generator: wrk, driven by a script that posts images and looks at every answer."""

import resource
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.processes import ServerError, die_with_benchmark
from benchmarks.results import Row
from benchmarks.workspace import CONNECTIONS

_SCRIPT = Path(__file__).with_name("wrk.lua")
INSTALL_WRK = "wrk is missing: install Debian's wrk"


@dataclass(frozen=True)
class LoadResult:
    """What wrk saw. ``load_cpu_ms``: its own CPU time for each request."""

    requests: int
    seconds: float
    rate: float
    wrong: int
    failed: int
    load_cpu_ms: float
    p50_ms: float
    p99_ms: float
    example: str

    @property
    def load_cpu_seconds(self) -> float:
        """wrk's CPU time in all."""
        return self.load_cpu_ms * self.requests / 1000

    def to_row(self) -> Row:
        """The row of results. It is ``invalid`` when a single answer was wrong or missing."""
        row: Row = {name: value for name, value in asdict(self).items() if name != "example"}
        if self.wrong or self.failed:
            row["invalid"] = f"{self.wrong} wrong, {self.failed} failed: {self.example}"
        return row


def find_wrk() -> str | None:
    """The program, if it is installed."""
    return shutil.which("wrk")


def run_load(
    port: int,
    requests: Path,
    seconds: float,
    *,
    expected_status: int = 200,
    classes: Iterable[str] = (),
    connections: int = CONNECTIONS,
) -> LoadResult:
    """Post the requests of a folder in turn for some seconds, each connection one after the other.

    ``classes``: those that may come first in an answer; any other answer counts as wrong. Raises
    :class:`ServerError` when nothing was answered.
    """
    count = len(list(requests.glob("*.http")))
    command = [find_wrk() or "wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(round(seconds), 1)}s", "--timeout", "30s"]
    command += ["--script", str(_SCRIPT), f"http://127.0.0.1:{port}/", "--", str(requests)]
    command += [str(count), str(expected_status), *classes]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=die_with_benchmark, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _read(answer, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _read(answer: "subprocess.CompletedProcess[str]", cpu_seconds: float) -> LoadResult:
    line = next((row for row in answer.stdout.splitlines() if row.startswith("RESULT ")), None)
    if line is None:
        raise ServerError(f"wrk failed: {(answer.stdout + answer.stderr)[-500:]}")
    words = line.split(maxsplit=9)[1:]
    total, microseconds, failed, timeouts, wrong, p50, p99, _ = (int(word) for word in words[:8])
    if not total:
        raise ServerError("the server answered nothing")
    return LoadResult(
        requests=total,
        seconds=microseconds / 1e6,
        rate=total * 1e6 / microseconds,
        wrong=wrong,
        failed=failed + timeouts,
        load_cpu_ms=cpu_seconds * 1000 / total,
        p50_ms=p50 / 1000,
        p99_ms=p99 / 1000,
        example=words[8] if len(words) > 8 else "",
    )
