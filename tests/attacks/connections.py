"""Connections that are left unfinished, held, or filled with more than a request needs."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx2

from tests.api_client import SAMPLE
from tests.attacks.attack import Attack, find_processes, measure_cpu_seconds
from tests.raw_connection import FORM, RawConnection, form_head
from tests.service import RunningService

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"POST /webhooks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LONGEST_SECONDS = 100  # in which a connection that is left unfinished must have ended
POLL_SECONDS = 0.25


class Witness:
    """Another client, who asks for something small all the time."""

    def __init__(self, service: RunningService) -> None:
        self._url = f"{service.url}/health/live"
        self._over = threading.Event()
        self._seconds: list[float] = []
        self._failures = 0
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            started = time.monotonic()
            try:
                httpx2.get(self._url, timeout=5).raise_for_status()
            except httpx2.HTTPError:
                self._failures += 1
            self._seconds.append(time.monotonic() - started)
            self._over.wait(0.05)

    def check(self, most_seconds: float = 2.0) -> str:
        """What it saw, in words; everything must have been answered in time."""
        assert self._seconds, "nobody was asked"
        assert not self._failures, f"{self._failures} of {len(self._seconds)} others failed"
        slowest = max(self._seconds)
        assert slowest < most_seconds, f"another waited {slowest:.1f} s"
        return f"{len(self._seconds)} others served, the slowest in {slowest * 1000:.0f} ms"


def measure_api_mb(service: RunningService) -> float:
    """Resident memory of the API."""
    return sum(process.memory_info().rss for process in find_processes(service, "api")) / 1e6


@contextmanager
def open_many(service: RunningService, number: int) -> Iterator[list[RawConnection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RawConnection(service.url)) for _ in range(number)]


def _leave_unfinished(service: RunningService) -> str:
    """Each kind at once; those that drip send a byte at each look."""
    upload = form_head("/classify", len(FORM)) + FORM[:1000]
    kinds: dict[str, tuple[bytes, bytes]] = {
        "silence": (b"", b""),
        "half a line": (b"GET /hea", b""),
        "dripping head": (GET + b"X: ", b"a"),
        "stalled upload": (upload, b""),
        "dripping upload": (upload, b"a"),
        "dripping chunks": (form_head("/classify", None), b"1\r\na\r\n"),
        "stalled batch": (form_head("/batches") + FORM[:1000], b""),
        "stalled JSON": (JSON + b"Content-Length: 100\r\n\r\n{", b""),
        "dripping trailers": (
            form_head("/classify", None) + b"%x\r\n%b\r\n0\r\nX: " % (len(FORM), FORM),
            b"a",
        ),
        "unread refusal": (form_head("/classify").replace(b"multipart", b"text"), b"a"),
        "resting": (GET + b"\r\n", b""),
    }
    ended: dict[str, float] = {}
    with Witness(service) as witness, open_many(service, len(kinds)) as connections:
        started = time.monotonic()
        open_ones = dict(zip(kinds, connections, strict=True))
        for kind, connection in open_ones.items():
            connection.send(kinds[kind][0])
        while open_ones and time.monotonic() - started < LONGEST_SECONDS:
            for kind, connection in list(open_ones.items()):
                if _has_ended(connection, kinds[kind][1]):
                    ended[kind] = time.monotonic() - started
                    del open_ones[kind]
            time.sleep(POLL_SECONDS)
    assert not open_ones, f"open after {LONGEST_SECONDS} s: {', '.join(open_ones)}"
    times = ", ".join(f"{kind} {seconds:.0f} s" for kind, seconds in ended.items())
    return f"closed: {times}; {witness.check()}"


def _has_ended(connection: RawConnection, drip: bytes) -> bool:
    """Whether the service has closed it; an answer that came before is read."""
    try:
        if drip:
            connection.send(drip)
        while not connection.hears_nothing(0):
            if not connection.socket.recv(65_536):
                return not drip or connection.is_cut_off()
    except OSError:
        return True
    return False


def _hold_silent(service: RunningService) -> str:
    with open_many(service, 1100), Witness(service) as witness:
        time.sleep(15)
    with Witness(service) as after:
        time.sleep(1)
    return f"{witness.check()}; after 15 s {after.check()}"


def _flood(service: RunningService, begun: bytes, piece: bytes, number: int, most: int) -> str:
    """``number`` connections that send ``piece`` again and again, ``most`` bytes each."""
    api = find_processes(service, "api")
    before_mb, before_cpu = measure_api_mb(service), measure_cpu_seconds(api)
    most_mb = 0.0
    with Witness(service) as witness, open_many(service, number) as connections:
        taken = []
        for connection in connections:
            taken.append(connection.send(begun).send_while_taken(piece, most))
            most_mb = max(most_mb, measure_api_mb(service) - before_mb)
    cpu = measure_cpu_seconds(api) - before_cpu
    assert max(taken) < most, "all of it was taken"
    assert most_mb < 30, f"API +{most_mb:.0f} MB"
    assert cpu < 2, f"{cpu:.1f} CPU s"
    return (
        f"cut off after {max(taken) / 1e6:.0f} MB at most; API +{most_mb:.0f} MB, "
        f"{cpu:.1f} CPU s; {witness.check()}"
    )


def _flood_with(begun: bytes, piece: bytes, number: int, most: int) -> Callable[..., str]:
    return lambda service: _flood(service, begun, piece, number, most)


def _stall_uploads(service: RunningService) -> str:
    """300 uploads of a megabyte each that stop before their end."""
    size = 1_000_000
    before = measure_api_mb(service)
    body = FORM[:-10] + bytes(size)
    with open_many(service, 300) as connections, Witness(service) as witness:
        for connection in connections:
            connection.send(form_head("/classify", len(body) + 1000) + body)
        held = measure_api_mb(service) - before
        started = time.monotonic()
        for connection in connections:
            connection.socket.settimeout(30)
            assert connection.read_answer().status == 408
        seconds = time.monotonic() - started
    assert seconds < 30, f"the last ended after {seconds:.0f} s"
    # 300 MB are received in between.
    seen = witness.check(most_seconds=10)
    return f"API +{held:.0f} MB until all end, with 408 after {seconds:.0f} s; {seen}"


@contextmanager
def pending_job(service: RunningService) -> Iterator[str]:
    """The id of a job that no worker comes to."""
    workers = find_processes(service, "worker")
    for worker in workers:
        worker.suspend()
    try:
        files = {"file": SAMPLE.read_bytes()}
        yield httpx2.post(f"{service.url}/classify", files=files).json()["job_id"]
    finally:
        for worker in workers:
            worker.resume()


def _send_ahead(service: RunningService) -> str:
    """Behind a request that waits, as many more as fit into what is read at once."""
    with pending_job(service) as job_id, open_many(service, 20) as connections:
        before = measure_api_mb(service)
        waiting = (
            f"GET /status/{job_id} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=5\r\n\r\n".encode()
        )
        with Witness(service) as witness:
            for connection in connections:
                connection.send(waiting + b"GET / HTTP/1.1\r\n\r\n" * 14_000)
            first = {connection.read_answer().status for connection in connections}
            grown = measure_api_mb(service) - before
    assert first == {200}, f"{first}, API +{grown:.0f} MB"
    assert grown < 60, f"API +{grown:.0f} MB"
    return f"API +{grown:.0f} MB; {witness.check()}"


def _stall_with_key(service: RunningService) -> str:
    upload = form_head("/classify", len(FORM), "Idempotency-Key: stalled") + FORM
    started = time.monotonic()
    with open_many(service, 2) as (stalled, again):
        stalled.send(upload[:-100])
        time.sleep(0.5)
        while again.send(upload).read_answer().status == 409:
            assert time.monotonic() - started < 30, "409 after 30 s"
            time.sleep(0.5)
    return f"the key is free after {time.monotonic() - started:.0f} s"


def _read_nothing(service: RunningService) -> str:
    asked = (
        b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n" * 100
    )
    started = time.monotonic()
    with open_many(service, 5) as connections, Witness(service) as witness:
        for connection in connections:
            connection.send(asked)
        while not all(connection.is_cut_off() for connection in connections):
            assert time.monotonic() - started < LONGEST_SECONDS, "open after 100 s"
            time.sleep(POLL_SECONDS)
    return f"closed after {time.monotonic() - started:.0f} s; {witness.check()}"


_LISTEN = """
import http.client, json, socket, sys
host, port, job, number = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
ask = f"GET /status/{job}/events HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode()
held, refused = [], 0
for _ in range(number):
    one = socket.create_connection((host, port), 10)
    one.sendall(ask)
    try:
        first = one.recv(100)
    except ConnectionResetError:
        first = b""
    if first.startswith(b"HTTP/1.1 200"):
        held.append(one)
    else:
        refused += 1
print(json.dumps({"held": len(held), "refused": refused}), flush=True)
sys.stdin.read()
"""


@contextmanager
def namespace() -> Iterator[tuple[str, str]]:
    """A network namespace, as another machine would be; its name, and this machine's address."""
    name, host = f"attack{os.getpid()}", "10.231.77.1"
    inside, outside = f"in{os.getpid()}", f"out{os.getpid()}"
    within = f"ip netns exec {name}"
    try:
        for command in (
            f"ip netns add {name}",
            f"ip link add {outside} type veth peer name {inside} netns {name}",
            f"ip address add {host}/30 dev {outside}",
            f"ip link set {outside} up",
            f"{within} ip address add 10.231.77.2/30 dev {inside}",
            f"{within} ip link set {inside} up",
        ):
            subprocess.run(command.split(), check=True)
        yield name, host
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def _listen_from_elsewhere(service: RunningService) -> str:
    if os.geteuid() or not shutil.which("ip"):
        return "not tried: only root may make a network namespace"
    with pending_job(service) as job_id, namespace() as (name, host):
        before = measure_api_mb(service)
        command = ["ip", "netns", "exec", name, sys.executable, "-c", _LISTEN]
        command += [host, str(service.port), job_id, "9500"]
        with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as listeners:
            assert listeners.stdout is not None
            counts = json.loads(listeners.stdout.readline())
            grown = measure_api_mb(service) - before
            with Witness(service) as witness:
                time.sleep(1)
            listeners.communicate("")
    assert counts["held"] == 1024, counts
    return f"{counts['held']} held, the others 503; API +{grown:.0f} MB; {witness.check()}"


ATTACKS = (
    Attack(
        "unfinished",
        "eleven kinds of connections that never finish a request",
        "open after 200 s (six kinds tried)",
        _leave_unfinished,
    ),
    Attack(
        "silent-1024",
        "1,100 silent connections, at most 1,024 open files",
        "every other client is reset for as long as they stay",
        _hold_silent,
        launcher=("prlimit", "--nofile=1024:1024"),
    ),
    Attack(
        "silent",
        "1,100 silent connections, the usual limit of open files",
        "with a soft limit of 1,024: every other client is reset",
        _hold_silent,
    ),
    Attack(
        "header-bomb",
        "one header of 100 MB",
        "200, 8.7 CPU s, others' median 881 ms",
        _flood_with(GET + b"X: ", b"a" * 60_000, 1, 100_000_000),
    ),
    Attack(
        "url-bomb",
        "an address of 100 MB",
        "400 after all of it was buffered",
        _flood_with(b"GET /", b"a" * 60_000, 1, 100_000_000),
    ),
    Attack(
        "header-fields",
        "millions of small headers, on 4 connections",
        "4 × 5 MB: API +455 MB, as long as they stay",
        _flood_with(GET, b"X: y\r\n" * 10_000, 4, 50_000_000),
    ),
    Attack(
        "trailers",
        "millions of trailers, on 4 connections",
        "17 times their size in memory, as long as they stay",
        _flood_with(
            form_head("/classify", None) + b"%x\r\n%b\r\n0\r\n" % (len(FORM), FORM),
            b"X: y\r\n" * 10_000,
            4,
            50_000_000,
        ),
    ),
    Attack(
        "slow-uploads",
        "300 uploads of 1 MB that stop before their end",
        "API +269 MB, as long as they stay",
        _stall_uploads,
    ),
    Attack(
        "sent-ahead",
        "280,000 requests sent ahead behind 20 that wait",
        "API +329 MB, others 503",
        _send_ahead,
    ),
    Attack(
        "stalled-key",
        "an upload with an Idempotency-Key that stalls, and comes again",
        "409 after 100 s",
        _stall_with_key,
    ),
    Attack(
        "deaf",
        "5 clients that ask for 100 large answers each and read none",
        "open after 100 s, for as long as they like",
        _read_nothing,
        {"HTTP_STALL_SECONDS": "10"},
    ),
    Attack(
        "listeners",
        "9,500 listeners of one client from another machine",
        "API +145 MB (15 KB each), no limit",
        _listen_from_elsewhere,
        {"LISTEN_HOST": "0.0.0.0"},
    ),
)
