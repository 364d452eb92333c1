"""Where the API and the worker's main process spend their CPU time under full load."""

import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from benchmarks.load import run_load
from benchmarks.models import BenchmarkModel
from benchmarks.participants import WARM_UP_SECONDS, Session
from benchmarks.processes import ServerError
from benchmarks.results import Row
from benchmarks.service import run_service
from benchmarks.uploads import SERVICE_FORM
from benchmarks.workspace import ENVIRONMENTS

PY_SPY = "py-spy==0.4.3"
_PROGRAM = ENVIRONMENTS / "py-spy" / "bin" / "py-spy"
_SAMPLES_PER_SECOND = "250"
# py-spy must have attached before, and end before, the load does.
_MARGIN_SECONDS = 2.0

_FRAME = re.compile(r" \((?P<path>[^()]*?)(:\d+)?\)$")
_PACKAGE = re.compile(r"(?:site-packages/|/python3\.\d+/|^)(?P<package>[^/]+)")


def install_profiler() -> None:
    """Put py-spy into a folder of its own."""
    if not _PROGRAM.exists():
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(ENVIRONMENTS / "py-spy"), PY_SPY], check=True)


def measure_profile(session: Session, model: BenchmarkModel) -> list[Row]:
    """Shares of the samples in which a process ran Python, by the package that ran innermost.

    Raises :class:`ServerError` where the system lets nobody look into processes.
    """
    variables = {"ENGINE": model.engine, "RESULT_CACHE_ENTRIES": "0"}
    with run_service(session.folder / "profile", **variables) as service:
        files = SERVICE_FORM.write_requests(list(session.images), session.folder / "profiled")
        run_load(service.port, files, WARM_UP_SECONDS)
        watched = {
            "API": service.groups["API"][0],
            "main process": service.groups["main process"][0],
        }
        with ThreadPoolExecutor() as pool:
            load = pool.submit(run_load, service.port, files, session.seconds + 2 * _MARGIN_SECONDS)
            records = {
                name: pool.submit(_record, process, session.folder / f"{name}.txt", session.seconds)
                for name, process in watched.items()
            }
            shares = {name: _read(record.result()) for name, record in records.items()}
            load.result()
    return [
        {"process": name, "package": package, "share": share}
        for name, packages in shares.items()
        for package, share in packages.items()
    ]


def _record(process: psutil.Process, path: Path, seconds: float) -> Path:
    command = [str(_PROGRAM), "record", "--pid", str(process.pid), "--format", "raw"]
    command += [
        "--gil",
        "--rate",
        _SAMPLES_PER_SECOND,
        "--duration",
        str(round(seconds)),
        "-o",
        str(path),
    ]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode or not path.exists():
        raise ServerError(f"py-spy failed: {answer.stderr.strip()[-300:]}")
    return path


def _read(path: Path) -> dict[str, float]:
    """From stacks with their counts to shares by package, largest first."""
    counts: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        counts[_package(stack.rpartition(";")[2])] += int(count)
    total = sum(counts.values()) or 1
    return {package: count / total for package, count in counts.most_common()}


def _package(frame: str) -> str:
    """The package of a frame, two levels deep for our own code."""
    found = _FRAME.search(frame)
    path = found["path"] if found else frame
    if path.startswith("app/") or "/app/" in path:
        return "app/" + "/".join(path.partition("app/")[2].split("/")[:1])
    match = _PACKAGE.search(path)
    return match["package"].removesuffix(".py") if match else path
