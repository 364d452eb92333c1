"""Redis Sentinel: the master is found, and found again after a failover; nobody has to be told."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
import redis
from kombu import Connection

from app.core import keys
from app.core.config import QueueSettings, RedisSettings
from app.core.direct_script import DirectScript
from app.core.redis_client import (
    broker_transport_options,
    broker_url,
    create_async_client,
    create_client,
)
from app.core.sentinel_url import SentinelUrl, find_sentinel_url
from app.embedded.redis_server import OLDEST_ON_PATH, find_redis_server
from app.embedded.supervisor import SAMPLE
from tests.interruption import interrupted_after
from tests.sentinel_servers import (
    DB,
    MASTER_NAME,
    PASSWORD,
    SENTINEL_PASSWORD,
    SentinelServers,
    run_sentinel,
)
from tests.service import RunningService, wait_until

HTTP = httpx2.Client(timeout=30, trust_env=False)
ENDED = ("completed", "failed")
WAITING_JOBS = 60


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[SentinelServers]:
    server = find_redis_server()
    if server is None or server.major < OLDEST_ON_PATH:
        pytest.skip("needs Debian's redis-server, 7 or newer")
    with run_sentinel(server.program, tmp_path) as running:
        yield running


@pytest.fixture
def service(servers: SentinelServers, tmp_path: Path) -> Iterator[RunningService]:
    variables = {"REDIS_URL": servers.url, "ENGINE": "torch", "WORKER_PROCESSES": "1"}
    running = RunningService(tmp_path / "service", **variables)
    yield running
    assert running.stop() == 0, "\n".join(running.lines)


def submit(service: RunningService) -> str | None:
    """Post an image; ``None`` while the service refuses."""
    answer = HTTP.post(f"{service.url}/classify", files={"file": SAMPLE.read_bytes()})
    if answer.status_code != 202:
        assert answer.status_code == 503, answer.text
        return None
    return str(answer.json()["job_id"])


def status_of(service: RunningService, job_id: str) -> str | None:
    """A job's status; ``None`` while the service can't say. Fails if it knows of no such job."""
    answer = HTTP.get(f"{service.url}/status/{job_id}")
    if answer.status_code != 200:
        assert answer.status_code == 503, answer.text
        return None
    return str(answer.json()["status"])


def wait_for_new_jobs(service: RunningService) -> None:
    """Wait until the service accepts jobs again, and completes them."""
    jobs: list[str] = []

    def has_accepted() -> bool:
        job_id = submit(service)
        jobs.extend([job_id] if job_id else [])
        return len(jobs) == 3

    wait_until(has_accepted, 60)
    for job_id in jobs:
        wait_until(lambda: status_of(service, job_id) == "completed", 60)


def worker_processes(service: RunningService) -> list[psutil.Process]:
    children = psutil.Process(service.process.pid).children()
    worker = next(child for child in children if "worker" in child.cmdline())
    return [worker, *worker.children(recursive=True)]


def test_clients_find_the_master_and_find_it_again(servers: SentinelServers) -> None:
    settings = RedisSettings(url=servers.url)

    async def write_before_and_after() -> None:
        async with create_async_client(settings) as client:
            await client.set("async", 1)
            await asyncio.to_thread(servers.kill_master)
            await client.set("async", 2)

    with create_client(settings) as client:
        assert int(client.client_info()["db"]) == DB
        client.set("sync", 1)
        asyncio.run(write_before_and_after())
        client.set("sync", 2)
    with servers.connect(servers.find_master()) as master:
        assert (master.get("sync"), master.get("async")) == (b"2", b"2")


def test_clients_leave_a_master_that_became_a_replica(servers: SentinelServers) -> None:
    """Their connections live on: it is the refused write that tells them."""
    settings = RedisSettings(url=servers.url)

    async def write_before_and_after() -> None:
        async with create_async_client(settings) as client:
            await client.set("async", 1)
            servers.exchange_quietly()
            await client.set("async", 2)

    with create_client(settings) as client:
        client.set("sync", 1)
        asyncio.run(write_before_and_after())
        client.set("sync", 2)
    with servers.connect(servers.find_master()) as master:
        assert (master.get("sync"), master.get("async")) == (b"2", b"2")


def test_a_script_leaves_a_master_that_became_a_replica(servers: SentinelServers) -> None:
    with create_client(RedisSettings(url=servers.url)) as client:
        write = DirectScript(client.connection_pool, "return redis.call('SET', 'script', ARGV[1])")
        write(args=[1])
        servers.exchange_quietly()
        write(args=[2])
    with servers.connect(servers.find_master()) as master:
        assert master.get("script") == b"2"


def test_a_script_does_not_take_the_answer_of_an_interrupted_one(servers: SentinelServers) -> None:
    with (
        create_client(RedisSettings(url=servers.url)) as client,
        servers.connect(servers.find_master()) as master,
    ):
        echo = DirectScript(client.connection_pool, "return ARGV[1]")
        assert echo(args=["first"]) == b"first"
        master.client_pause(600)
        with interrupted_after(0.2):
            echo(args=["unheard"])
        assert echo(args=["next"]) == b"next"


def test_a_repeated_read_asks_the_new_master(servers: SentinelServers) -> None:
    """A connection that broke while it waited for an answer must not return to the old address."""
    with create_client(RedisSettings(url=servers.url)) as client:
        connection = client.connection_pool.get_connection()
        before = connection.port
        servers.exchange_quietly()
        connection.disconnect()
        connection.send_command("PING")
        assert connection.read_response() == b"PONG"
        assert connection.port == servers.find_master() != before
        client.connection_pool.release(connection)


def test_kombu_finds_the_master_and_its_database(servers: SentinelServers) -> None:
    settings = RedisSettings(url=servers.url)
    options = broker_transport_options(settings)
    with Connection(broker_url(settings), transport_options=options) as connection:
        with connection.SimpleQueue("queue") as queue:
            queue.put({"key": "value"})
            with servers.connect(servers.find_master()) as master:
                assert master.llen("queue") == 1
        assert PASSWORD not in connection.as_uri()


def test_a_complaint_is_short_and_names_who_was_asked(servers: SentinelServers) -> None:
    url = servers.url.replace("sentinel_password=", "sentinel_password=x")
    with create_client(RedisSettings(url=url)) as client:
        with pytest.raises(redis.RedisError) as caught:
            client.ping()
    complaint = str(caught.value)
    assert f"127.0.0.1:{servers.port} - auth:AuthenticationError" in complaint
    assert len(complaint) < 250
    assert SENTINEL_PASSWORD not in complaint and PASSWORD not in complaint


def test_silent_sentinels_are_not_waited_for_without_end(servers: SentinelServers) -> None:
    servers.suspend_sentinel()
    started = time.monotonic()
    with create_client(RedisSettings(url=servers.url, timeout_seconds=0.2)) as client:
        with pytest.raises(redis.RedisError):
            client.ping()
    assert time.monotonic() - started < 2


def test_accepted_jobs_end_although_the_master_dies(
    servers: SentinelServers, service: RunningService
) -> None:
    processes = worker_processes(service)
    for process in processes:
        process.suspend()  # so that the master dies with jobs in the queue and jobs under way
    jobs = [job_id for _ in range(WAITING_JOBS) if (job_id := submit(service))]
    assert len(jobs) == WAITING_JOBS
    for process in processes:
        process.resume()
    with servers.connect(servers.find_master()) as master:
        wait_until(lambda: status_of(service, jobs[0]) == "completed")
        master.set("mark", 1)
        assert master.wait(1, 5000) == 1  # what was written before the mark has a second home
        assert master.llen(keys.QUEUE) > 0
        servers.kill_master()
    for job_id in jobs:
        wait_until(lambda: status_of(service, job_id) in ENDED, 60)
    failed = [job_id for job_id in jobs if status_of(service, job_id) == "failed"]
    # The uploads of a batch that ended in the master's last millisecond are gone already.
    assert len(failed) <= QueueSettings().batch_size
    wait_for_new_jobs(service)
    output = "\n".join(service.lines)
    assert PASSWORD not in output and SENTINEL_PASSWORD not in output


def test_the_service_follows_a_planned_failover(
    servers: SentinelServers, service: RunningService
) -> None:
    servers.fail_over()
    wait_for_new_jobs(service)
    with servers.connect(servers.find_master()) as master:
        assert master.zcard(keys.WORKERS) == 1


def test_a_url_says_everything() -> None:
    url = "sentinel://me:a%40b@one,two:7000,[::1]:7001/main?db=3&sentinel_password=c%26d"
    assert find_sentinel_url(url) == SentinelUrl(
        sentinels=(("one", 26379), ("two", 7000), ("::1", 7001)),
        master_name="main",
        db=3,
        username="me",
        password="a@b",
        sentinel_password="c&d",
    )
    assert find_sentinel_url("redis://localhost") is None


def test_nothing_starts_with_a_master_that_no_sentinel_knows(
    servers: SentinelServers, tmp_path: Path
) -> None:
    url = servers.url.replace(MASTER_NAME, "nobody")
    with pytest.raises(AssertionError, match="No master found for 'nobody'"):
        RunningService(tmp_path / "service", REDIS_URL=url)
