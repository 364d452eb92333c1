"""The ledger alone, without payloads and inference: a million queued jobs, and Redis at its limit.

Everything that knows how the ledger is called is in :mod:`benchmarks.ledger_driver`.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from benchmarks.ledger_driver import LedgerDriver
from benchmarks.processes import Server, die_with_benchmark, read_line
from benchmarks.results import Row
from benchmarks.rounds import Report
from benchmarks.workspace import clean_environment

QUEUED_JOBS = 1_000_000
_PROBES = 2_000
"""Jobs of one measurement of what submitting and claiming cost."""
_PROBE_ROUNDS = 9
_FILL_STEP = 50_000
_DRIVERS = (1, 2, 4)
_WAIT_SECONDS = 20.0
_PAUSE_SECONDS = 0.2
EMPTY, FULL = "empty", "full"


@contextmanager
def run_redis(folder: Path, *options: str) -> Iterator[tuple[str, Server]]:
    """A Redis of the benchmark's own on a Unix socket; its URL and its process."""
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", ""]
    command += ["--maxmemory-policy", "noeviction", "--dir", str(folder), *options]
    with Server("redis", command, clean_environment(), folder) as server:
        server.wait_for(lambda: _answers(socket), _WAIT_SECONDS)
        yield f"unix://{socket}", server


def _answers(socket: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def measure_full_queue(folder: Path, queued: int, report: Report) -> tuple[list[Row], float]:
    """What a submit and a claim cost with an empty queue and with ``queued`` jobs in it.

    Two ledgers, each on a Redis of its own, take turns. Gives their rows, and the bytes of Redis's
    memory for each queued job.
    """
    with ExitStack() as stack:
        ledgers = {}
        for name in (EMPTY, FULL):
            options = ("--appendonly", "yes", "--appendfsync", "no")
            url, _ = stack.enter_context(run_redis(folder / name, *options))
            ledgers[name] = stack.enter_context(LedgerDriver(url)), url
        bytes_per_job = _fill(*ledgers[FULL], queued, report)
        rows = list[Row]()
        for number in range(_PROBE_ROUNDS):
            for name, (driver, url) in ledgers.items():
                rows.append({"participant": name, "round": number, **_probe(driver, url)})
                report(f"{name} queue: submit {rows[-1]['submit_redis_us']:.1f} µs of Redis")
    return rows, bytes_per_job


def _fill(driver: LedgerDriver, url: str, queued: int, report: Report) -> float:
    """Queue jobs; the bytes of Redis's memory that each takes."""
    with redis.Redis.from_url(url) as client:
        before = int(client.info("memory")["used_memory"])
        for done in range(0, queued, _FILL_STEP):
            driver.submit(min(_FILL_STEP, queued - done), group=128)
            report(f"{min(done + _FILL_STEP, queued):,} jobs queued")
        memory = int(client.info("memory")["used_memory"]) - before
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(_PAUSE_SECONDS)
    return memory / queued


def _probe(driver: LedgerDriver, url: str) -> Row:
    """Submit jobs one by one, claim as many in batches, finish them: the queue is as before."""
    row: Row = {}
    steps = {
        "submit": lambda: driver.submit(_PROBES, group=1),
        "claim": lambda: driver.claim(_PROBES),
        "finish": driver.finish,
    }
    with redis.Redis.from_url(url) as client:
        for name, step in steps.items():
            client.config_resetstat()
            started = time.perf_counter()
            step()
            row[f"{name}_wall_us"] = (time.perf_counter() - started) * 1e6 / _PROBES
            row[f"{name}_redis_us"] = _script_microseconds(client) / _PROBES
    return row


def _script_microseconds(client: redis.Redis) -> float:
    """What Redis spent in scripts since its statistics were reset."""
    statistics = client.info("commandstats")
    calls = (statistics.get(f"cmdstat_{name}", {"usec": 0}) for name in ("evalsha", "eval"))
    return float(sum(call["usec"] for call in calls))


def measure_redis_limit(folder: Path, rounds: int, seconds: float, report: Report) -> list[Row]:
    """Processes that submit, and as many that claim and finish at once, without any inference.

    Redis's CPU time for each job says how many would fill its one core.
    """
    rows = []
    for number in range(rounds):
        for drivers in _DRIVERS:
            place = folder / f"limit-{number}-{drivers}"
            with run_redis(place, "--appendonly", "yes", "--appendfsync", "no") as (url, _):
                row = _drive(url, drivers, seconds)
            rows.append({"round": number, "drivers": drivers, **row})
            report(f"{drivers} × 2 processes: {row['rate']:.0f} jobs/s, limit {row['limit']:.0f}")
    return rows


def _drive(url: str, drivers: int, seconds: float) -> Row:
    command = [sys.executable, "-m", "benchmarks.ledger_driver", url, str(seconds)]
    with redis.Redis.from_url(url) as client, ExitStack() as stack:
        before, started = client.info("cpu"), time.perf_counter()
        processes = []
        for role in ("submit", "work") * drivers:
            process = subprocess.Popen(
                [*command, role],
                stdout=subprocess.PIPE,
                text=True,
                env=clean_environment(),
                preexec_fn=die_with_benchmark,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            read_line(process.stdout)
        done = int(client.get("benchmark:finished") or 0)
        wall, after = time.perf_counter() - started, client.info("cpu")
    fields = ("used_cpu_user", "used_cpu_sys")
    spent = sum(float(after[name]) - float(before[name]) for name in fields)
    return {
        "jobs": done,
        "rate": done / seconds,
        "redis_us": spent * 1e6 / done,
        "limit": done / spent,
        "redis_share": spent / wall,
    }
