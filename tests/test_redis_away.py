"""Redis away and back, as clients of the API see it."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import uuid4

import pytest
import redis
from httpx2 import Client, Response

from app.core import keys
from app.core.config import PayloadSettings, RedisSettings, Settings
from app.core.errors import ServiceUnavailableError
from app.core.redis_client import create_async_client
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import create_payload_store, payload_folder
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script
from app.jobs.service import JobService
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem, submit
from tests.api_server import run_api
from tests.faults.proxy import TcpProxy
from tests.service import wait_until

ANSWER = Answer("a-model", "7", "torch")

# The promises: an answer while Redis is away, and work as ever once it is back.
ANSWER_SECONDS = 2.8  # two seconds, and a machine that does much else
RECOVERY_SECONDS = 5.0

CLIENTS = 16

Fault = Callable[[TcpProxy], None]


@pytest.fixture
def proxy(clean_redis_url: str) -> Iterator[TcpProxy]:
    with TcpProxy(clean_redis_url.removeprefix("unix://")) as running:
        yield running


@pytest.fixture
def direct(clean_redis_url: str) -> Iterator[Any]:
    """The way around the proxy."""
    with redis.Redis.from_url(clean_redis_url) as connection:
        yield connection


@pytest.fixture
def settings(settings: Settings, proxy: TcpProxy) -> Settings:
    return settings.model_copy(update={"redis": RedisSettings(url=proxy.url)})


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url, timeout=30) as client:
        assert submit(client).status_code == 202
        yield client


def ask_many(ask: Callable[[], Response]) -> list[tuple[Response, float]]:
    """Answers to as many clients at once, and the seconds that each took."""

    def measure(_: int) -> tuple[Response, float]:
        started = time.monotonic()
        return ask(), time.monotonic() - started

    with ThreadPoolExecutor(CLIENTS) as threads:
        return list(threads.map(measure, range(CLIENTS)))


REQUESTS: dict[str, Callable[[Client], Response]] = {
    "classify": submit,
    "status": lambda client: client.get(f"/status/{uuid4()}"),
    "result": lambda client: client.get(f"/result/{uuid4()}"),
    "ready": lambda client: client.get("/health/ready"),
}

FAULTS: dict[str, Fault] = {"refused": TcpProxy.refuse, "swallowed": TcpProxy.swallow}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_everybody_has_a_503_in_time_and_is_served_soon_after_redis_is_back(
    client: Client, proxy: TcpProxy, fault: str, request_name: str
) -> None:
    ask = REQUESTS[request_name]
    served = ask(client).status_code
    FAULTS[fault](proxy)
    for response, seconds in ask_many(lambda: ask(client)):
        assert_problem(response, 503, "service-unavailable")
        assert int(response.headers["retry-after"]) >= 1
        assert seconds < ANSWER_SECONDS
    proxy.pass_on()
    wait_until(lambda: ask(client).status_code == served, RECOVERY_SECONDS)


@pytest.mark.parametrize("fault", FAULTS)
def test_health_answers_at_once_and_recovers(client: Client, proxy: TcpProxy, fault: str) -> None:
    FAULTS[fault](proxy)
    for response, seconds in ask_many(lambda: client.get("/health")):
        assert (response.status_code, response.json()["status"]) == (503, "unhealthy")
        assert int(response.headers["retry-after"]) >= 1
        assert seconds < ANSWER_SECONDS
    assert client.get("/health/live").status_code == 200
    proxy.pass_on()
    wait_until(lambda: client.get("/health").status_code == 200, RECOVERY_SECONDS)


@pytest.mark.parametrize("store", ["files", "redis"])
def test_also_those_whose_upload_had_begun_have_a_503_in_time(
    settings: Settings, proxy: TcpProxy, store: Literal["files", "redis"]
) -> None:
    """The look before the body is half a second old at most: Redis may go after it."""
    app = create_app(settings.model_copy(update={"payload": PayloadSettings(store=store)}))
    with run_api(app) as url, Client(base_url=url, timeout=30) as client:
        assert submit(client).status_code == 202
        proxy.swallow()
        for response, seconds in ask_many(lambda: submit(client)):
            assert_problem(response, 503, "service-unavailable")
            assert seconds < ANSWER_SECONDS


def test_connections_that_are_reset_are_made_anew_unnoticed(
    client: Client, proxy: TcpProxy
) -> None:
    for _ in range(5):
        proxy.reset()
        assert submit(client).status_code == 202


def test_many_requests_cost_a_redis_that_is_away_few_connections(
    client: Client, proxy: TcpProxy, direct: Any
) -> None:
    proxy.swallow()
    before = direct.info("stats")["total_connections_received"]
    started = time.monotonic()
    for _ in range(10):
        for response, _ in ask_many(lambda: submit(client)):
            assert response.status_code == 503
    seconds = time.monotonic() - started
    made = direct.info("stats")["total_connections_received"] - before
    # Three before it counts as away, then one a second; each call may open a second one.
    assert made <= 2 * (3 + seconds + 1)


def test_many_refusals_are_a_few_lines_in_the_log(
    client: Client, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("app").addHandler(caplog.handler)
    proxy.refuse()
    for _ in range(10):
        ask_many(lambda: submit(client))
    proxy.pass_on()
    wait_until(lambda: submit(client).status_code == 202, RECOVERY_SECONDS)
    logging.getLogger("app").removeHandler(caplog.handler)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, messages
    assert messages[0].startswith("Redis does not answer, requests are refused until it does")
    assert messages[1] == "Redis answers again"


# --- The circuit breaker --------------------------------------------------------------------------


class Dependency:
    """What a guard calls; counts its calls."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "answer"


@pytest.mark.parametrize(
    "error", [redis.ConnectionError("refused"), redis.TimeoutError(), OSError(), TimeoutError()]
)
def test_after_three_failures_nobody_asks_until_a_second_has_passed(error: Exception) -> None:
    async def run() -> None:
        guard, dependency = RedisGuard(), Dependency(error)
        for _ in range(20):
            with pytest.raises(ServiceUnavailableError):
                await guard.call(dependency)
        assert dependency.calls == 3
        dependency.error = None
        async with asyncio.timeout(RECOVERY_SECONDS):
            while dependency.calls == 3:
                try:
                    assert await guard.call(dependency) == "answer"
                except ServiceUnavailableError:
                    await asyncio.sleep(0.05)
        assert await guard.call(dependency) == "answer"

    asyncio.run(run())


def test_an_error_that_redis_answers_does_not_count_as_away() -> None:
    async def run() -> None:
        guard, dependency = RedisGuard(), Dependency(redis.ResponseError("WRONGTYPE"))
        for _ in range(20):
            with pytest.raises(redis.ResponseError):
                await guard.call(dependency)
        assert dependency.calls == 20

    asyncio.run(run())


# --- Nothing is lost or accepted twice ------------------------------------------------------------


def digest_of_submit(settings: Settings, direct: Any) -> str:
    text = render_script("submit", Rules.from_settings(settings))
    digest: str = direct.script_load(text)
    return digest


def test_a_submit_whose_answer_is_lost_is_sent_again_and_accepted_once(
    client: Client, settings: Settings, proxy: TcpProxy, direct: Any
) -> None:
    before = direct.llen(keys.QUEUE)
    cut = proxy.cut_after(f"EVALSHA {digest_of_submit(settings, direct)}")
    response = submit(client)
    assert cut.is_set()
    assert response.status_code == 202
    assert direct.llen(keys.QUEUE) == before + 1


def test_a_job_whose_acceptance_nobody_heard_of_keeps_its_upload_and_completes(
    settings: Settings, proxy: TcpProxy, direct: Any
) -> None:
    job_id = uuid4()

    async def run() -> None:
        async with create_async_client(settings.redis) as client:
            service = JobService(client, settings, RedisGuard())
            first = service.create_upload(uuid4())
            await first.write(b"first")
            await service.submit(uuid4(), first, "anonymous")
            # Redis has the script after a second and answers after two: too late.
            proxy.delay(2)
            upload = service.create_upload(job_id)
            await upload.write(SAMPLE.read_bytes())
            with pytest.raises(ServiceUnavailableError):
                await service.submit(job_id, upload, "anonymous")

    asyncio.run(run())
    around = RedisLedger(direct, settings)
    payloads = create_payload_store(settings, direct)
    claims = around.claim("w", ANSWER).claims
    assert [claim.job_id for claim in claims][1:] == [str(job_id)]
    assert payloads.read_many([str(job_id)]) == [SAMPLE.read_bytes()]
    assert str(job_id) in around.finish([Outcome.completed(claim, []) for claim in claims])


def test_an_upload_that_never_reached_redis_is_left_to_the_sweeper_of_orphans(
    settings: Settings, proxy: TcpProxy, direct: Any
) -> None:
    job_id = uuid4()

    async def run() -> None:
        async with create_async_client(settings.redis) as client:
            service = JobService(client, settings, RedisGuard())
            upload = service.create_upload(job_id)
            await upload.write(SAMPLE.read_bytes())
            proxy.swallow()
            with pytest.raises(ServiceUnavailableError):
                await service.submit(job_id, upload, "anonymous")

    asyncio.run(run())
    assert os.listdir(payload_folder(settings)) == [str(job_id)]
    assert RedisLedger(direct, settings).find_unknown([str(job_id)]) == [str(job_id)]
