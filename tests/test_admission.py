"""More work than there is room for: refused early, with a time to come back, and nothing left."""

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
import redis
from httpx2 import Client, Response

from app.api.uploads import FORM_OVERHEAD_BYTES
from app.core import keys
from app.core.config import LimitSettings, PayloadSettings, QueueSettings, RedisSettings, Settings
from app.core.errors import ResultsFullError
from app.core.redis_client import create_async_client
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import payload_folder
from app.jobs.redis_guard import RedisGuard
from app.jobs.service import JobService
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem, png_head, submit
from tests.api_server import run_api
from tests.ledger.ledger_under_test import memory_limit_reached
from tests.redis_servers import find_programs, run_redis
from tests.service import wait_until

ANSWER = Answer("a-model", "7", "torch")
SAMPLE_BYTES = SAMPLE.stat().st_size


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


@pytest.fixture
def direct(settings: Settings) -> Iterator[Any]:
    with redis.Redis.from_url(settings.redis.url) as connection:
        yield connection


@pytest.fixture
def ledger(settings: Settings, direct: Any) -> RedisLedger:
    return RedisLedger(direct, settings)


@pytest.fixture
def app_log(client: Client, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the running service logs. It keeps its lines from the root logger."""
    logging.getLogger("app").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("app").removeHandler(caplog.handler)


def uploads(settings: Settings) -> set[str]:
    return set(os.listdir(payload_folder(settings)))


def finish_all(ledger: RedisLedger) -> None:
    while claims := ledger.claim("w", ANSWER).claims:
        ledger.finish([Outcome.completed(claim, []) for claim in claims])


def send_head_only(client: Client, content_length: int) -> bytes:
    """The answer to a request whose body is never sent."""
    host, port = client.base_url.host, client.base_url.port
    with socket.create_connection((host, port or 80), timeout=10) as connection:
        connection.sendall(
            b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" % content_length
        )
        return connection.recv(65_536)


class TestTooManyJobs:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"queue": QueueSettings(max_jobs=4)})

    @pytest.fixture
    def accepted(self, client: Client) -> list[str]:
        """As many jobs as may wait."""
        responses = [submit(client) for _ in range(4)]
        assert [response.status_code for response in responses] == [202] * 4
        return [response.json()["job_id"] for response in responses]

    def test_one_more_is_refused_and_leaves_nothing(
        self, client: Client, settings: Settings, accepted: list[str]
    ) -> None:
        response = submit(client)
        assert_problem(response, 429, "queue-full")
        assert response.headers["retry-after"] == "5", "nothing was measured yet"
        assert uploads(settings) == set(accepted)

    def test_it_is_refused_before_its_body_is_read(
        self, client: Client, accepted: list[str]
    ) -> None:
        answer = send_head_only(client, SAMPLE_BYTES)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b'"code":"queue-full"' in answer

    def test_of_many_at_once_exactly_as_many_as_fit_are_accepted(
        self, client: Client, settings: Settings
    ) -> None:
        with ThreadPoolExecutor(24) as threads:
            responses = list(threads.map(lambda _: submit(client), range(24)))
        accepted = [answer.json()["job_id"] for answer in responses if answer.status_code == 202]
        refused = [answer for answer in responses if answer.status_code != 202]
        assert (len(accepted), len(refused)) == (4, 20)
        for response in refused:
            assert_problem(response, 429, "queue-full")
        assert uploads(settings) == set(accepted)

    @pytest.mark.parametrize(
        ("drain_rate", "seconds"), [(0.5, 8), (3, 2), (1000, 1), (0.0001, 3600)]
    )
    def test_retry_after_is_the_time_that_the_waiting_jobs_will_take(
        self, client: Client, direct: Any, drain_rate: float, seconds: int
    ) -> None:
        direct.hset(keys.DRAIN, "rate", drain_rate)
        for _ in range(4):
            submit(client)
        assert submit(client).headers["retry-after"] == str(seconds)

    def test_there_is_room_again_once_jobs_have_ended(
        self, client: Client, ledger: RedisLedger, accepted: list[str]
    ) -> None:
        assert submit(client).status_code == 429
        finish_all(ledger)
        wait_until(lambda: submit(client).status_code == 202, 5)

    def test_jobs_are_followed_as_ever(self, client: Client, accepted: list[str]) -> None:
        assert submit(client).status_code == 429
        assert client.get(f"/status/{accepted[0]}").json()["status"] == "pending"
        assert client.get(f"/result/{accepted[0]}").status_code == 202
        assert client.get("/health").json()["queue_length"] == 4

    def test_many_refusals_are_logged_in_two_lines(
        self,
        client: Client,
        ledger: RedisLedger,
        accepted: list[str],
        app_log: pytest.LogCaptureFixture,
    ) -> None:
        for _ in range(30):
            assert submit(client).status_code == 429
        finish_all(ledger)
        wait_until(lambda: submit(client).status_code == 202, 5)
        first, last = (record.getMessage() for record in app_log.records)
        assert first == "uploads are refused: 4 jobs wait"
        assert last.startswith("there is room again, after 3")


class TestTooManyBytes:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        # What a form adds to its file counts in what a request announces.
        room = 2 * SAMPLE_BYTES + 500
        limits = LimitSettings(file_size=room)
        queue = QueueSettings(max_bytes=room)
        return settings.model_copy(update={"limits": limits, "queue": queue})

    def test_uploads_are_accepted_while_there_is_room(
        self, client: Client, settings: Settings
    ) -> None:
        first, second, third = (submit(client) for _ in range(3))
        assert (first.status_code, second.status_code) == (202, 202)
        assert_problem(third, 429, "queue-full")
        assert len(uploads(settings)) == 2

    def test_an_upload_that_announces_too_much_is_refused_before_its_body_is_read(
        self, client: Client
    ) -> None:
        submit(client)
        length = 2 * SAMPLE_BYTES + FORM_OVERHEAD_BYTES
        assert send_head_only(client, length).startswith(b"HTTP/1.1 429 ")

    def test_a_smaller_upload_may_still_fit(self, client: Client) -> None:
        submit(client)
        assert submit(client, SAMPLE.read_bytes() + bytes(SAMPLE_BYTES // 2)).status_code == 429
        assert submit(client).status_code == 202


def test_the_largest_file_fits_an_empty_queue_of_the_least_size(settings: Settings) -> None:
    tight = {
        "limits": LimitSettings(file_size=SAMPLE_BYTES),
        "queue": QueueSettings(max_bytes=SAMPLE_BYTES),
    }
    app = create_app(settings.model_copy(update=tight))
    with run_api(app) as url, Client(base_url=url) as client:
        assert submit(client).status_code == 202


# --- Redis's memory -------------------------------------------------------------------------------


@pytest.fixture(params=["files", "redis"])
def either_store(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"payload": PayloadSettings(store=request.param)})


class TestRedisIsFull:
    @pytest.fixture
    def settings(self, either_store: Settings) -> Settings:
        return either_store

    def refused(self, client: Client) -> Response:
        """The answer once the service has seen that Redis is full; until then others are right."""
        wait_until(lambda: submit(client).status_code == 429, 5)
        return submit(client)

    def test_an_upload_is_refused(self, client: Client, direct: Any) -> None:
        with memory_limit_reached(direct):
            response = self.refused(client)
        assert_problem(response, 429, "results-full")
        assert response.headers["retry-after"] == "60", "nothing is kept that would expire"

    def test_the_sender_learns_when_the_oldest_result_expires(
        self, client: Client, direct: Any, ledger: RedisLedger
    ) -> None:
        job_id = submit(client).json()["job_id"]
        finish_all(ledger)
        direct.expire(keys.job(job_id), 700)
        with memory_limit_reached(direct):
            # An upload that came too far to be told the time is told a minute.
            wait_until(lambda: self.refused(client).headers["retry-after"] != "60", 5)
            response = self.refused(client)
        assert 690 < int(response.headers["retry-after"]) <= 700

    def test_it_is_refused_before_its_body_is_read(self, client: Client, direct: Any) -> None:
        with memory_limit_reached(direct):
            self.refused(client)
            answer = send_head_only(client, SAMPLE_BYTES)
        assert answer.startswith(b"HTTP/1.1 429 ")

    def test_accepted_jobs_end_and_can_be_followed(
        self, client: Client, direct: Any, ledger: RedisLedger
    ) -> None:
        job_id = submit(client).json()["job_id"]
        with memory_limit_reached(direct):
            finish_all(ledger)
            assert client.get(f"/status/{job_id}").json()["status"] == "completed"
            assert client.get(f"/result/{job_id}").status_code == 200
            health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert any("memory limit" in reason for reason in health.json()["reasons"])

    def test_uploads_are_accepted_again_once_there_is_memory(
        self, client: Client, direct: Any
    ) -> None:
        with memory_limit_reached(direct):
            self.refused(client)
        wait_until(lambda: submit(client).status_code == 202, 5)

    def test_an_upload_that_came_too_far_is_refused_and_leaves_nothing(
        self, settings: Settings, direct: Any
    ) -> None:
        """Redis may fill up after the look before the body."""

        async def run() -> None:
            async with create_async_client(settings.redis) as client:
                service = JobService(client, settings, RedisGuard())
                job_id = uuid4()
                upload = service.create_upload(job_id)
                await upload.write(SAMPLE.read_bytes())
                with memory_limit_reached(direct), pytest.raises(ResultsFullError):
                    await service.submit(job_id, upload, "anonymous")

        asyncio.run(run())
        assert uploads(settings) == set() if settings.payload.store == "files" else True
        assert direct.keys(keys.PREFIX + "*") == []


@pytest.mark.parametrize("program", find_programs().values(), ids=find_programs().keys())
@pytest.mark.parametrize("store", ["files", "redis"])
def test_a_redis_that_can_not_save_to_its_disk_is_full(
    settings: Settings, program: str, store: Literal["files", "redis"]
) -> None:
    """It then refuses every write, in other words than when its memory is full."""
    with run_redis(program) as redis_url:
        # Redis can't replace a folder with its snapshot.
        (Path(redis_url.removeprefix("unix://")).parent / "dump.rdb").mkdir()
        with redis.Redis.from_url(redis_url) as direct:
            direct.config_set("save", "3600 1")
            direct.bgsave()
            wait_until(lambda: direct.info("persistence")["rdb_last_bgsave_status"] == "err")
            full = {
                "redis": RedisSettings(url=redis_url),
                "payload": PayloadSettings(store=store),
            }
            app = create_app(settings.model_copy(update=full))
            with run_api(app) as url, Client(base_url=url) as client:
                assert_problem(submit(client), 503, "storage-full")
                reasons = client.get("/health").json()["reasons"]
            assert any("Redis refuses to write: MISCONF" in reason for reason in reasons)
            assert direct.keys() == []


# --- the disk for uploads -------------------------------------------------------------------------


class TestTheReserveIsReached:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        payload = PayloadSettings(reserve_bytes=1 << 50)
        return settings.model_copy(update={"payload": payload})

    def test_an_upload_is_refused_and_leaves_nothing(
        self, client: Client, settings: Settings
    ) -> None:
        response = submit(client)
        assert_problem(response, 503, "storage-full")
        assert response.headers["retry-after"] == "10"
        assert uploads(settings) == set()

    def test_it_is_refused_before_its_body_is_read(self, client: Client) -> None:
        assert send_head_only(client, SAMPLE_BYTES).startswith(b"HTTP/1.1 503 ")

    def test_health_says_so(self, client: Client) -> None:
        reasons = client.get("/health").json()["reasons"]
        assert any("disk for uploads" in reason for reason in reasons)


class TestTheDiskIsFull:
    """On a disk of two megabytes, with nothing kept in reserve."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Iterator[Settings]:
        folder = payload_folder(settings)
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("only root may mount a small disk")
        try:
            yield settings.model_copy(update={"payload": PayloadSettings(reserve_bytes=0)})
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    @pytest.mark.parametrize("size", [2_100_000, 5_000_000])
    def test_an_upload_that_does_not_fit_is_refused_and_leaves_nothing(
        self, client: Client, settings: Settings, size: int
    ) -> None:
        response = submit(client, png_head(100, 100) + bytes(size))
        assert_problem(response, 503, "storage-full")
        assert uploads(settings) == set()

    def test_others_are_accepted(self, client: Client, settings: Settings) -> None:
        submit(client, png_head(100, 100) + bytes(5_000_000))
        response = submit(client)
        assert response.status_code == 202
        assert uploads(settings) == {response.json()["job_id"]}

    def test_jobs_that_end_make_room(
        self, client: Client, settings: Settings, ledger: RedisLedger
    ) -> None:
        large = png_head(100, 100) + bytes(1_500_000)
        job_id = submit(client, large).json()["job_id"]
        assert submit(client, large).status_code == 503
        finish_all(ledger)
        (payload_folder(settings) / job_id).unlink()
        assert submit(client, large).status_code == 202
