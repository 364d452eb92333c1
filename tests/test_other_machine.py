"""The service as another machine reaches it: by address and by name, started in each way."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.api_client import SAMPLE
from tests.network_namespaces import Machine, connect_two, find_obstacle
from tests.service import COMMAND, STOP_SECONDS, RunningService, clean_environment, wait_until

ROOT = Path(__file__).parents[1]
PORT = 8000  # each machine has ports of its own
NAME = socket.gethostname()


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Machine, Machine]]:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    with connect_two() as both:
        yield both


def curl(machine: Machine, *arguments: str) -> tuple[int, str]:
    """The answer's status, 0 without one, and its body."""
    output = machine.run("curl", "-sS", "-m", "20", "-w", "\n%{http_code}", *arguments)
    body, _, status = output.rpartition("\n")
    return int(status), body


@contextmanager
def running(
    machine: Machine, *command: str, folder: Path, redis_url: str, at: str = ""
) -> Iterator[None]:
    """Run the command until the end of the block; it listens at ``at``, or everywhere."""
    process = subprocess.Popen(
        [*machine.launcher, *command],
        cwd=ROOT,
        env=clean_environment(REDIS_URL=redis_url, DATA_DIR=str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        here = f"http://{at or machine.address}:{PORT}/health/live"
        wait_until(lambda: process.poll() is not None or curl(machine, here)[0] == 200)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_SECONDS)


def ask_by_every_name(machine: Machine, address: str) -> dict[str, int]:
    """The status of a request under each name, all sent to one address."""
    statuses = {}
    for name in (address, "localhost", NAME, f"{NAME.partition('.')[0]}.local", "evil.example"):
        found = ("--resolve", f"{name}:{PORT}:{address}")
        statuses[name], _ = curl(machine, *found, f"http://{name}:{PORT}/jobs")
    return statuses


def test_the_four_calls_of_the_specification_work_from_there(
    machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    server, client = machines
    service = RunningService(tmp_path, launcher=server.launcher, host="0.0.0.0")
    url = f"http://{server.address}:{service.port}"
    try:
        status, body = curl(client, "-F", f"file=@{SAMPLE}", f"{url}/classify")
        assert status == 202, body
        job_id = json.loads(body)["job_id"]
        assert curl(client, f"{url}/status/{job_id}")[0] == 200
        status, body = curl(client, "-H", "Prefer: wait=30", f"{url}/result/{job_id}")
        assert status == 200 and "cat" in json.loads(body)["predictions"][0]["class_name"]
        status, body = curl(client, f"{url}/health")
        assert status == 200 and json.loads(body)["status"] == "healthy"
    finally:
        assert service.stop() == 0, "\n".join(service.lines)


COMMANDS = {
    "specification": (
        *(str(Path(sys.executable).with_name("uvicorn")), "app.main:app", "--reload"),
        *("--host", "0.0.0.0", "--port", str(PORT)),
    ),
    "command": (COMMAND, "api", "--host", "0.0.0.0"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_it_is_reached_by_address_and_by_the_machines_name(
    machines: tuple[Machine, Machine],
    clean_redis_url: str,
    tmp_path: Path,
    command: tuple[str, ...],
) -> None:
    server, client = machines
    with running(server, *command, folder=tmp_path, redis_url=clean_redis_url):
        expected = dict.fromkeys((server.address, "localhost", NAME), 200)
        expected |= {f"{NAME.partition('.')[0]}.local": 200, "evil.example": 421}
        assert ask_by_every_name(client, server.address) == expected
        # Many machines have their own name for loopback in /etc/hosts.
        here = ("--resolve", f"{NAME}:{PORT}:127.0.0.1", f"http://{NAME}:{PORT}/jobs")
        assert curl(server, *here)[0] == 200


def test_what_listens_on_loopback_has_no_name_but_localhost(
    machines: tuple[Machine, Machine], clean_redis_url: str, tmp_path: Path
) -> None:
    server, client = machines
    command = (COMMAND, "api", "--host", "127.0.0.1")
    with running(server, *command, folder=tmp_path, redis_url=clean_redis_url, at="127.0.0.1"):
        assert curl(client, f"http://{server.address}:{PORT}/health/live")[0] == 0
        expected = dict.fromkeys(("127.0.0.1", "localhost"), 200)
        expected |= dict.fromkeys((NAME, f"{NAME.partition('.')[0]}.local", "evil.example"), 421)
        assert ask_by_every_name(server, "127.0.0.1") == expected
