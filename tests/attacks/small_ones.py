"""Attacks on what is small: the log, webhooks' receivers and ports, parts that nobody reads."""

import socket
import threading
import time
from datetime import datetime
from http.client import HTTPConnection
from statistics import median

from httpx2 import Client

from tests.api_client import submit
from tests.attacks.attack import Attack, find_processes, measure_cpu_seconds
from tests.service import RunningService, wait_until
from tests.webhooks.receiver import SECONDS, run_receiver

LOOPBACK = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.1/32"}
REQUESTS = 500
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" * 4000
PART = b'--x\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + b"y" * 10 + b"\r\n"
MEBIBYTE = 1 << 20


def _count_written(service: RunningService, before: int) -> tuple[int, int]:
    """Lines and bytes that the API has written since there were ``before`` lines."""
    lines = [line for line in service.lines[before:] if line.lstrip().startswith("api")]
    return len(lines), sum(len(line) + 1 for line in lines)


def break_off_registrations(service: RunningService) -> str:
    """Begin to register a webhook and hang up, again and again."""
    before = len(service.lines)
    head = b"POST /webhooks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    for _ in range(REQUESTS):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
    wait_until(lambda: any("POST /webhooks" in line for line in service.lines[before:]))
    with Client(base_url=service.url) as client:
        assert client.get("/health/live").status_code == 200
    lines, size = _count_written(service, before)
    assert not any("Traceback" in line for line in service.lines[before:]), "a traceback each"
    assert size < 100 * REQUESTS, f"{size} bytes of log"
    return f"{REQUESTS} of them: {lines} lines, {size:,} bytes in all"


def flood_with_refusals(service: RunningService) -> str:
    """Guess admin tokens and ask for what is not there, as fast as one connection can."""
    before, started = len(service.lines), time.monotonic()
    connection = HTTPConnection("127.0.0.1", service.port)
    for number in range(3 * REQUESTS):
        headers = {"Authorization": f"Bearer {number}"}
        connection.request("GET", "/admin/dead-letters" if number % 2 else "/no", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (401, 404)
    seconds = time.monotonic() - started
    lines, _ = _count_written(service, before)
    assert 0 < lines <= 12 * (seconds + 2), f"{lines} lines in {seconds:.1f} s"
    return f"{3 * REQUESTS} refusals in {seconds:.1f} s: {lines} lines, the rest as a number"


class EndlessReceiver:
    """Accepts whatever comes and answers 1xx for as long as anybody listens."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self.attempts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.attempts += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        try:
            with connection:
                connection.recv(65_536)
                while True:
                    connection.sendall(INTERIM)
        except OSError:
            return

    def stop(self) -> None:
        self._listener.close()


def answer_interim_without_end(service: RunningService) -> str:
    """Register a receiver that never comes to its final answer, beside a good one."""
    bad, delays = EndlessReceiver(), []
    sender = find_processes(service, "webhooks")
    try:
        with run_receiver() as good, Client(base_url=service.url) as client:
            for url in (bad.url, good.url):
                wish = {"url": url, "events": ["job.completed"]}
                assert client.post("/webhooks", json=wish).status_code == 201
            used = measure_cpu_seconds(sender)
            for _ in range(12):
                assert submit(client).status_code == 202
                event = good.next().event
                delays.append(time.time() - datetime.fromisoformat(event["timestamp"]).timestamp())
            wait_until(lambda: bad.attempts > 0)
            used = measure_cpu_seconds(sender) - used
    finally:
        bad.stop()
    assert used < 2, f"the sender used {used:.1f} CPU s"
    delay = median(delays) * 1000
    return f"hung up on at the eleventh; sender {used:.2f} CPU s, a good receiver {delay:.0f} ms"


def register_ports(service: RunningService) -> str:
    """Let the service send POSTs to what is no web server."""
    ports = (0, 22, 25, 2375, 5432, 6379, 9200, 11211, 27017)
    with Client(base_url=service.url) as client:
        for port in ports:
            answer = client.post("/webhooks", json={"url": f"http://93.184.216.34:{port}/"})
            assert answer.status_code == 422, f"port {port}: {answer.status_code}"
        assert client.post("/webhooks", json={"url": "http://93.184.216.34:8443/"}).is_success
    return f"422 `webhook-port-refused` for all of {', '.join(map(str, ports))}"


def send_unread_parts(service: RunningService) -> str:
    """Send a batch of small fields with no image among them."""
    api = find_processes(service, "api")
    used, piece = measure_cpu_seconds(api), PART * 1000
    count = 20 * MEBIBYTE // len(piece)
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.settimeout(SECONDS)
        head = "POST /batches HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n"
        head += f"Content-Length: {count * len(piece)}\r\n\r\n"
        try:
            connection.sendall(head.encode())
            for _ in range(count):
                connection.sendall(piece)
        except OSError:
            pass  # it was answered before all was sent
        status = connection.recv(65_536).split(b" ")[1:2]
    used = measure_cpu_seconds(api) - used
    assert used < 0.5, f"{used:.2f} CPU s for 20 MiB"
    assert status == [b"422"], f"answered {status!r}"
    return f"422 `unread-parts` at the 1,001st; 20 MiB cost {used:.2f} CPU s"


ATTACKS = (
    Attack(
        "broken-off-registration",
        "`POST /webhooks` broken off, again and again",
        "500 and a traceback of 2,400 bytes each",
        break_off_registrations,
    ),
    Attack(
        "refusals-in-the-log",
        "Guesses of the admin token, and 404s, at full speed",
        "a line each, 6,900 a second",
        flood_with_refusals,
        {"ADMIN_TOKEN": "a-token-of-at-least-32-characters"},
    ),
    Attack(
        "interim-answers",
        "Receiver of webhooks that answers 1xx without end",
        "sender at 100 % CPU for 15 s an attempt; a good receiver 21 → 821 ms",
        answer_interim_without_end,
        LOOPBACK,
    ),
    Attack(
        "webhook-ports",
        "Webhooks to ports of databases, mail and remote shells",
        "any port of a public address was sent a POST",
        register_ports,
    ),
    Attack(
        "unread-parts",
        "`POST /batches` of parts that nobody reads",
        "2 GiB taken, 0.043 CPU s a MB: 88 s of the API",
        send_unread_parts,
    ),
)
