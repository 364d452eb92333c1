"""How real Celery workers listen for doorbells, without models and jobs (``tests.bell_worker``)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import redis

from app.core import keys
from app.jobs.doorbell import BELL_ID, render_message
from tests.bell_worker import BELL_SECONDS, IGNORES_SOFT_LIMIT
from tests.faults.proxy import TcpProxy
from tests.service import clean_environment, wait_until

ROOT = Path(__file__).parent.parent

# Longer than any test: such a child is busy until the end.
FOR_EVER = {BELL_SECONDS: "600"}


class BellWorker:
    """One worker with one process, unless told otherwise, and what it and its children said."""

    def __init__(self, redis_url: str, log: Path, **environment: str) -> None:
        self._log = log
        settings = {"REDIS_URL": redis_url, "WORKER_PROCESSES": "1"} | environment
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.bell_worker", "worker", "-linfo"],
                cwd=ROOT,
                env=clean_environment(**settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, word: str) -> list[str]:
        """What its processes said so far, in ``tests.bell_worker``'s way."""
        return [line for line in self._log.read_text().splitlines() if line.startswith(f"{word} ")]

    def logged(self, words: str) -> int:
        """How often these words are in its log."""
        return self._log.read_text().count(words)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        return self.logged(" ready.") > 0

    def kill(self) -> None:
        """End it and its children, whatever they do."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


StartWorker = Callable[..., BellWorker]


@pytest.fixture
def start(clean_redis_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker and waits until it is ready."""
    numbers = count()
    with ExitStack() as stack:

        def start_worker(url: str = clean_redis_url, **environment: str) -> BellWorker:
            worker = BellWorker(url, tmp_path / f"worker-{next(numbers)}.log", **environment)
            stack.callback(worker.kill)
            wait_until(worker.is_ready)
            return worker

        yield start_worker


@pytest.fixture
def broker(clean_redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(clean_redis_url) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.fixture
def proxy(clean_redis_url: str) -> Iterator[TcpProxy]:
    with TcpProxy(clean_redis_url.removeprefix("unix://")) as proxy:
        yield proxy


def ring(broker: "redis.Redis", times: int = 1) -> None:
    for number in range(times):
        message = render_message().replace(BELL_ID, f"bell-{time.monotonic_ns()}-{number}")
        broker.lpush(keys.DOORBELLS, message)


# --- What a bell costs ----------------------------------------------------------------------------


def test_answering_bells_leaves_nothing_in_redis(start: StartWorker, broker: "redis.Redis") -> None:
    worker = start(**FOR_EVER | {"WORKER_PROCESSES": "2"})
    ring(broker, 2)
    wait_until(lambda: len(worker.said("began")) == 2)
    assert broker.keys() == []


def test_a_worker_takes_no_more_bells_than_it_has_free_processes(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    first = start(**FOR_EVER | {"WORKER_PROCESSES": "2"})
    ring(broker, 5)
    wait_until(lambda: len(first.said("began")) == 2)
    second = start(**FOR_EVER)
    wait_until(lambda: len(second.said("began")) == 1)
    assert broker.llen(keys.DOORBELLS) == 2


def test_a_process_that_is_free_again_takes_the_next_bell(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    worker = start()
    ring(broker, 20)
    wait_until(lambda: len(worker.said("ended")) == 20)
    assert broker.keys() == []


# --- When Redis is full, silent or away -----------------------------------------------------------


def test_a_full_redis_keeps_no_worker_from_answering_or_starting(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    running = start(**{BELL_SECONDS: "1"})
    ring(broker, 12)
    wait_until(lambda: running.said("began"))
    broker.config_set("maxmemory", 1)
    started = start(**{BELL_SECONDS: "1"})
    wait_until(lambda: broker.llen(keys.DOORBELLS) == 0)
    assert len(running.said("began")) > 1
    assert started.said("began")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        broker.set("proof", "that it was full")


def test_a_connection_that_went_dead_without_a_word_is_replaced(
    start: StartWorker, broker: "redis.Redis", proxy: TcpProxy
) -> None:
    """As when a firewall has forgotten it: no byte passes, and nobody says that it is closed."""
    worker = start(proxy.url)
    proxy.swallow()
    time.sleep(2)  # BRPOP is answered once a second: one answer at least is lost
    proxy.pass_on()
    ring(broker)
    wait_until(lambda: worker.said("ended"), 15)


def test_a_worker_is_back_within_seconds_of_redis_and_complains_once(
    start: StartWorker, broker: "redis.Redis", proxy: TcpProxy
) -> None:
    worker = start(proxy.url)
    proxy.refuse()
    time.sleep(8)  # Celery's own retries are six seconds apart by now
    assert worker.logged("no connection to Redis") == 1
    proxy.pass_on()
    ring(broker)
    wait_until(lambda: worker.said("ended"), 3)
    assert not worker.logged("Traceback")


def test_a_server_that_takes_no_writes_is_tried_once_a_second(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    """As a master is after a failover: it accepts connections and refuses to pop a bell."""
    worker = start()
    broker.replicaof("127.0.0.1", 1)
    try:
        time.sleep(4)
    finally:
        broker.replicaof("NO", "ONE")
    assert 2 <= worker.logged("ReadOnlyError") <= 6
    ring(broker)
    wait_until(lambda: worker.said("ended"), 3)
    assert not worker.logged("Traceback")


def test_a_worker_that_reconnected_still_counts_its_busy_processes(
    start: StartWorker, broker: "redis.Redis", proxy: TcpProxy
) -> None:
    first = start(proxy.url, **FOR_EVER | {"WORKER_PROCESSES": "2"})
    ring(broker)
    wait_until(lambda: first.said("began"))
    proxy.reset()
    wait_until(lambda: first.logged("Connected to") == 2)
    ring(broker, 3)
    wait_until(lambda: len(first.said("began")) == 2)
    second = start(**FOR_EVER)
    wait_until(lambda: second.said("began"))
    assert broker.llen(keys.DOORBELLS) == 1


def test_term_ends_a_worker_that_waits_for_redis(start: StartWorker, proxy: TcpProxy) -> None:
    worker = start(proxy.url)
    proxy.refuse()
    wait_until(lambda: worker.logged("no connection to Redis"))
    worker.process.terminate()
    assert worker.process.wait(5) == 0


# --- Time limits ----------------------------------------------------------------------------------

LIMITS = {"WORKER_SOFT_LIMIT_SECONDS": "0.3", "WORKER_TIME_LIMIT_SECONDS": "0.8"}


def test_the_soft_limit_interrupts_a_bell_and_keeps_its_process(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    worker = start(**FOR_EVER | LIMITS)
    ring(broker, 2)
    wait_until(lambda: len(worker.said("interrupted")) == 2)
    (pid,) = {int(line.split()[1]) for line in worker.said("interrupted")}
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: worker.said("gone"))
    assert worker.said("gone") == [f"gone {pid} False"]


def test_a_child_killed_at_the_hard_limit_is_known_as_timed_out_when_it_is_missed(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    worker = start(**FOR_EVER | LIMITS | {IGNORES_SOFT_LIMIT: "1"})
    ring(broker)
    wait_until(lambda: worker.said("gone"))
    (began,) = worker.said("began")
    assert worker.said("gone") == [began.replace("began", "gone") + " True"]


def test_a_child_that_died_is_not_known_as_timed_out(
    start: StartWorker, broker: "redis.Redis"
) -> None:
    worker = start(**FOR_EVER)
    ring(broker)
    wait_until(lambda: worker.said("began"))
    pid = int(worker.said("began")[0].split()[1])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: worker.said("gone"))
    assert worker.said("gone") == [f"gone {pid} False"]
    ring(broker)
    wait_until(lambda: len(worker.said("began")) == 2)
