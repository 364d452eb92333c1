"""Uploads as files: on the disk when they are said to be, erased when nobody wants them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
import redis

from app.core.config import EngineName, ModelSettings, QueueSettings, Settings
from app.core.job_errors import PayloadUnreadableError
from app.jobs.file_payloads import FilePayloads
from app.jobs.job import Answer, Claim, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from app.models.ml_models import PreparedModel, prepare_model
from app.tasks.worker import LedgerKeeper
from tests.api_client import submit
from tests.api_server import run_api
from tests.service import MODEL_CACHE, clean_environment, find_free_port, wait_until

ANSWER = Answer("a-model", "7", "torch")
HOUR_SECONDS = 3600


# --- DURABILITY -----------------------------------------------------------------------------------


def check_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian: strace)")
    if subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode != 0:
        pytest.skip("strace may not look at processes here")


class TracedApi:
    """The API as uvicorn's own command starts it, and the system calls that it makes."""

    def __init__(self, url: str, trace: Path) -> None:
        self.url = url
        self._trace = trace

    def calls(self) -> list[str]:
        """Syncs and answers so far, in their order: "fsync PATH" or "202"."""
        found = re.finditer(
            r"fsync\(\d+<([^>]*)>|\"HTTP/1\.1 (202)", self._trace.read_text(errors="replace")
        )
        return [f"fsync {match[1]}" if match[1] else match[2] for match in found]


@contextmanager
def run_traced_api(settings: Settings, durability: str, trace: Path) -> Iterator[TracedApi]:
    port = find_free_port()
    calls = "trace=fsync,write,writev,sendto,sendmsg"
    command = ["strace", "-f", "-y", "-s", "16", "-e", calls, "-o", str(trace)]
    command += [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    environment = clean_environment(
        REDIS_URL=settings.redis.url, DATA_DIR=str(settings.data_dir), DURABILITY=durability
    )
    process = subprocess.Popen(
        command, env=environment, cwd=Path(__file__).parent.parent, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_live(url), 60)
        yield TracedApi(url, trace)
    finally:
        # strace itself does not listen; it ends with what it traces.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def is_live(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def test_with_durability_always_an_upload_is_on_the_disk_before_it_is_accepted(
    settings: Settings, tmp_path: Path
) -> None:
    check_strace()
    with run_traced_api(settings, "always", tmp_path / "trace") as api:
        with httpx2.Client(base_url=api.url, timeout=30) as client:
            job_id = submit(client).json()["job_id"]
        wait_until(lambda: "202" in api.calls(), 10)
        folder = payload_folder(settings)
        before = api.calls()[: api.calls().index("202")]
        assert before == [f"fsync {folder / job_id}", f"fsync {folder}"]


def test_with_durability_everysec_an_upload_is_on_the_disk_within_a_second_or_so(
    settings: Settings, tmp_path: Path
) -> None:
    check_strace()
    with run_traced_api(settings, "everysec", tmp_path / "trace") as api:
        with httpx2.Client(base_url=api.url, timeout=30) as client:
            job_id = submit(client).json()["job_id"]
        folder = payload_folder(settings)
        wait_until(lambda: f"fsync {folder}" in api.calls(), 5)
        assert f"fsync {folder / job_id}" in api.calls()


# --- Orphans --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared() -> PreparedModel:
    return prepare_model(
        Settings(model=ModelSettings(cache_dir=MODEL_CACHE), engine=EngineName.ONNXRUNTIME)
    )


class Storeroom:
    """An API's uploads, a ledger, and the worker's duties."""

    def __init__(self, settings: Settings, prepared: PreparedModel) -> None:
        self.settings = settings
        self.folder = payload_folder(settings)
        self.ledger_client = redis.Redis.from_url(settings.redis.url)
        self.ledger = RedisLedger(self.ledger_client, settings)
        # It erases uploads without asking its worker anything.
        self.keeper = LedgerKeeper(None, prepared, settings)

    def submit_many(self, count: int) -> list[str]:
        with run_api(create_app(self.settings)) as url, httpx2.Client(base_url=url) as client:
            return [submit(client).json()["job_id"] for _ in range(count)]

    def claim(self) -> list[Claim]:
        return self.ledger.claim("w", ANSWER).claims

    def grow_old(self, seconds: float = HOUR_SECONDS + 60) -> None:
        """As if all uploads were from so long ago."""
        then = time.time() - seconds
        for path in self.folder.iterdir():
            os.utime(path, (then, then))

    def uploads(self) -> set[str]:
        return set(os.listdir(self.folder))


@pytest.fixture
def storeroom(
    settings: Settings, prepared: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> Storeroom:
    monkeypatch.setenv("CLASSIFIER_WORKER_NAME", "a-worker")
    return Storeroom(settings, prepared)


def test_an_upload_without_a_job_is_erased_after_an_hour(storeroom: Storeroom) -> None:
    orphan = storeroom.folder / str(uuid4())
    orphan.write_bytes(b"half an upl")
    storeroom.grow_old(HOUR_SECONDS - 60)
    storeroom.keeper.sweep_uploads()
    assert storeroom.uploads() == {orphan.name}, "its upload may still go on"
    storeroom.grow_old(HOUR_SECONDS + 60)
    storeroom.keeper.sweep_uploads()
    assert storeroom.uploads() == set()


def test_uploads_of_jobs_that_wait_or_run_are_kept_however_old(storeroom: Storeroom) -> None:
    ids = storeroom.submit_many(3)
    first, second, _ = storeroom.claim()
    # One waits for its retry, one is back in the queue, one runs.
    storeroom.ledger.finish([Outcome.retry(first, "x", "y", reason="z", delay_ms=60_000)])
    storeroom.ledger.hand_back("w", [second])
    storeroom.grow_old()
    storeroom.keeper.sweep_uploads()
    assert storeroom.uploads() == set(ids)


def test_uploads_of_dead_letters_are_kept_until_these_are_let_go(storeroom: Storeroom) -> None:
    (job_id,) = storeroom.submit_many(1)
    (claim,) = storeroom.claim()
    storeroom.ledger.finish([Outcome.unprocessable(claim, "classification-failed", "no", "x")])
    storeroom.grow_old()
    storeroom.keeper.sweep_uploads()
    assert storeroom.uploads() == {job_id}


def test_the_upload_of_a_job_that_ended_as_its_worker_died_is_erased(
    settings: Settings, prepared: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds out about the death erases what the dead could not, whatever its age."""
    monkeypatch.setenv("CLASSIFIER_WORKER_NAME", "a-worker")
    hasty = QueueSettings(lease_seconds=1, sweep_seconds=0.1)
    storeroom = Storeroom(settings.model_copy(update={"queue": hasty}), prepared)
    storeroom.submit_many(2)
    ended, held = storeroom.claim()
    storeroom.ledger.finish([Outcome.completed(ended, [])])

    def sweep() -> bool:
        storeroom.keeper.sweep()
        return storeroom.uploads() == {held.job_id}

    assert not sweep()
    wait_until(sweep, 10)


def test_the_sweeper_erases_the_upload_of_a_job_whose_time_is_up(storeroom: Storeroom) -> None:
    with run_api(create_app(storeroom.settings)) as url, httpx2.Client(base_url=url) as client:
        submit(client, cancel_after="0.001s")
    assert len(storeroom.uploads()) == 1

    def is_erased() -> bool:
        storeroom.keeper.sweep()
        return storeroom.uploads() == set()

    wait_until(is_erased, 10)


# --- A store that can't be read -------------------------------------------------------------------


def test_a_missing_folder_is_not_taken_for_missing_uploads(tmp_path: Path) -> None:
    payloads = FilePayloads(tmp_path / "payloads")
    assert payloads.read_many(["nothing"]) == [None]
    (tmp_path / "payloads").rmdir()
    with pytest.raises(PayloadUnreadableError):
        payloads.read_many(["nothing"])


def test_an_upload_is_for_its_owner_only(storeroom: Storeroom) -> None:
    (job_id,) = storeroom.submit_many(1)
    assert (storeroom.folder / job_id).stat().st_mode & 0o077 == 0
    assert storeroom.folder.stat().st_mode & 0o077 == 0


def test_uploads_in_a_folder_of_another_redis_are_left_alone(
    settings: Settings, prepared: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look like left-overs, and their jobs may still wait."""
    monkeypatch.setenv("CLASSIFIER_WORKER_NAME", "a-worker")
    first = Storeroom(settings, prepared)
    (job_id,) = first.submit_many(1)
    first.keeper.check_uploads()
    first.ledger_client.flushall()  # as good as another Redis
    second = Storeroom(settings, prepared)
    second.grow_old()
    second.keeper.sweep_uploads()
    assert second.uploads() == {job_id}
