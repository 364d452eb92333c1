"""The service under test: `classifier up` as users start it, its processes by what they do."""

import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.processes import Server, ServerError, cpu_seconds
from benchmarks.uploads import UploadForm
from benchmarks.workspace import WORKERS, clean_environment, find_port

START_SECONDS = 240.0  # more than `classifier up` itself gives a start
GROUPS = ("API", "Redis", "main process", "children", "supervisor")
SENDER = "webhooks"
_READY = "ready after"

Groups = dict[str, list[psutil.Process]]


@dataclass(frozen=True)
class ServiceUnderTest:
    """A service that is ready."""

    server: Server
    port: int
    data_dir: Path

    @property
    def groups(self) -> Groups:
        """The processes that live now, by what they do."""
        return group_processes(self.server.process.pid)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far by what the processes do."""
        return {name: cpu_seconds(processes) for name, processes in self.groups.items()}

    def api_memory_mb(self) -> dict[str, float]:
        """Memory of the API's processes: resident, and what no other process shares."""
        used = [process.memory_full_info() for process in self.groups["API"]]
        return {
            "api_rss_mb": sum(info.rss for info in used) / 1e6,
            "api_uss_mb": sum(info.uss for info in used) / 1e6,
        }


@contextmanager
def run_service(folder: Path, **variables: str) -> Iterator[ServiceUnderTest]:
    """`classifier up` on a free port with a data folder of its own and settings from variables."""
    port, data_dir = find_port(), folder / "data"
    command = [sys.executable, "-P", "-m", "app.cli", "up", "--port", str(port)]
    command += ["--workers", str(WORKERS), "--data-dir", str(data_dir)]
    with Server("service", command, clean_environment(**variables), folder) as server:
        server.wait_for(lambda: _READY in server.read_log(), START_SECONDS)
        yield ServiceUnderTest(server, port, data_dir)


def group_processes(supervisor_pid: int) -> Groups:
    """The processes of a `classifier up`."""
    groups: Groups = {name: [] for name in (*GROUPS, SENDER)}
    supervisor = psutil.Process(supervisor_pid)
    groups["supervisor"].append(supervisor)
    for child in supervisor.children():
        command = " ".join(child.cmdline())
        if "redis" in command and "celery" not in command and "app.cli" not in command:
            groups["Redis"].append(child)
        elif command.endswith(" api"):
            groups["API"] += [child, *child.children(recursive=True)]
        elif command.endswith(" webhooks"):
            groups[SENDER].append(child)
        else:
            groups["main process"].append(child)
            groups["children"] += child.children(recursive=True)
    return groups


def ask(port: int, form: UploadForm, image: bytes) -> tuple[int, dict[str, str], bytes]:
    """Upload one image; gives status, headers by lower-case name, and body."""
    headers, body = form.split(image)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", form.path, body, headers)
        answer = connection.getresponse()
        fields = {name.lower(): text for name, text in answer.getheaders()}
        return answer.status, fields, answer.read()
    finally:
        connection.close()


def ask_for_answer(port: int, form: UploadForm, image: bytes) -> tuple[str, float]:
    """The class that comes first, and its confidence. Raises :class:`ServerError` for a refusal."""
    status, _, body = ask(port, form, image)
    if status != 200:
        raise ServerError(f"{form.path} answered {status}: {body[:200]!r}")
    first = json.loads(body)["predictions"][0]
    return first["class_name"], first["confidence"]
