"""A Redis master, its replica and a sentinel that watches both, on free loopback ports."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.service import find_free_port, wait_until

MASTER_NAME = "classifier-master"
# Characters that mean something in a URL.
PASSWORD = "p@ss:w/rd"
SENTINEL_PASSWORD = "wat&ch?"
DB = 2


def _connect(port: int, password: str, db: int = 0) -> "redis.Redis":
    return redis.Redis(
        port=port, password=password, db=db, socket_timeout=5, retry=Retry(NoBackoff(), retries=0)
    )


class SentinelServers:
    """Two Redis servers and the sentinel that chooses which of them is the master."""

    def __init__(self, program: str, folder: Path, running: ExitStack) -> None:
        self._program = program
        self._folder = folder
        self._running = running
        first, second, self.port = find_free_port(), find_free_port(), find_free_port()
        self.servers = {first: self._start_redis(first)}
        wait_until(lambda: self._is_up(first))
        self.servers[second] = self._start_redis(second, "--replicaof", "127.0.0.1", str(first))
        wait_until(lambda: self.connect(first).info("replication")["connected_slaves"] == 1)
        wait_until(lambda: self._is_synchronised(second))
        self._start_sentinel(first)
        self._sentinel = _connect(self.port, SENTINEL_PASSWORD)
        wait_until(self._knows_replica)

    @property
    def url(self) -> str:
        """What belongs into REDIS_URL: a sentinel that nobody answers for, then the real one."""
        hosts = f"127.0.0.1:{find_free_port()},127.0.0.1:{self.port}"
        query = f"db={DB}&sentinel_password={quote(SENTINEL_PASSWORD, safe='')}"
        return f"sentinel://:{quote(PASSWORD, safe='')}@{hosts}/{MASTER_NAME}?{query}"

    def connect(self, port: int) -> "redis.Redis":
        """A client of one of the two servers, whichever part it plays."""
        return _connect(port, PASSWORD, DB)

    def find_master(self) -> int:
        """The port of the server that the sentinel calls the master."""
        return int(self._master_state()["port"])

    def _master_state(self) -> dict[str, Any]:
        states = cast(dict[str, dict[str, Any]], self._sentinel.sentinel_masters())
        return states[MASTER_NAME]

    def fail_over(self) -> None:
        """Make the replica the master while the old master lives; returns when both know."""
        before = self.find_master()
        self._sentinel.sentinel_failover(MASTER_NAME)
        wait_until(lambda: self._has_left(before))
        wait_until(lambda: self._is_replica(before))

    def exchange_quietly(self) -> None:
        """The same by hand, so that clients of the old master keep their connections to it."""
        before = self.find_master()
        (after,) = set(self.servers) - {before}
        self._sentinel.sentinel_remove(MASTER_NAME)
        self.connect(after).replicaof("NO", "ONE")
        self.connect(before).replicaof("127.0.0.1", after)
        self._sentinel.sentinel_monitor(MASTER_NAME, "127.0.0.1", after, 1)
        self._sentinel.sentinel_set(MASTER_NAME, "auth-pass", PASSWORD)

    def suspend_sentinel(self) -> None:
        """Let the sentinel answer nobody, and its connections stay."""
        self._sentinel_process.send_signal(signal.SIGSTOP)

    def kill_master(self) -> None:
        """End the master as a power cut does; returns when the replica has taken over."""
        before = self.find_master()
        self.servers[before].send_signal(signal.SIGKILL)
        wait_until(lambda: self._has_left(before))

    def _has_left(self, port: int) -> bool:
        state = self._master_state()
        return state["port"] != port and not state["is_sdown"]

    def _is_up(self, port: int) -> bool:
        try:
            return bool(self.connect(port).ping())
        except redis.RedisError:
            return False

    def _is_replica(self, port: int) -> bool:
        try:
            return bool(self.connect(port).info("replication")["role"] == "slave")
        except redis.RedisError:
            # It cuts its clients off when it changes its part.
            return False

    def _is_synchronised(self, port: int) -> bool:
        return self._is_up(port) and (
            self.connect(port).info("replication")["master_link_status"] == "up"
        )

    def _knows_replica(self) -> bool:
        try:
            replicas = self._sentinel.sentinel_slaves(MASTER_NAME)
        except redis.RedisError:
            return False
        return [replica["master-link-status"] for replica in replicas] == ["ok"]

    def _start_redis(self, port: int, *options: str) -> "subprocess.Popen[bytes]":
        folder = self._folder / str(port)
        folder.mkdir()
        return self._start(
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"),
            *("--requirepass", PASSWORD, "--masterauth", PASSWORD),
            *("--repl-diskless-sync-delay", "0", *options),
        )

    def _start_sentinel(self, master: int) -> None:
        configuration = self._folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f'requirepass "{SENTINEL_PASSWORD}"',
            f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master} 1",
            f'sentinel auth-pass {MASTER_NAME} "{PASSWORD}"',
            f"sentinel down-after-milliseconds {MASTER_NAME} 1000",
            f"sentinel failover-timeout {MASTER_NAME} 3000",
        ]
        configuration.write_text("\n".join(lines) + "\n")
        self._sentinel_process = self._start(str(configuration), "--sentinel")

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        self._running.callback(process.wait)
        self._running.callback(process.kill)
        return process


@contextmanager
def run_sentinel(program: str, folder: Path) -> Iterator[SentinelServers]:
    """Run the three servers; ready when the sentinel knows the replica."""
    with ExitStack() as running:
        yield SentinelServers(program, folder, running)
