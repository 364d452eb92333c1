"""Where deliveries may go, and that they go nowhere else."""

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from app.core.config import WebhookSettings
from app.core.errors import ServiceError
from app.webhooks.addresses import AddressGuard
from tests.api_client import assert_problem
from tests.service import find_free_port, wait_until
from tests.webhooks.post_office import PostOffice, run_sender
from tests.webhooks.receiver import SECONDS, run_receiver

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # cloud metadata
    "168.63.129.16",  # Azure's
    "100.64.0.1",  # shared by a provider's customers (CGNAT)
    "224.0.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "192.0.0.8",
    "192.0.0.9",
    "192.0.0.192",
    "192.88.99.1",
    "::",
    "::1",
    "::7f00:1",
    "fe80::1",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001:1::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "64:ff9b::168.63.129.16",
    "2002:a83f:8110::",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "64:ff9b::10.0.0.1",  # NAT64
    "64:ff9b:1::10.0.0.1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
]
PUBLIC = [
    "93.184.216.34",
    "1.1.1.1",
    "168.63.129.17",
    "192.0.1.1",
    "2001:200::1",
    "2606:4700::1111",
    "3fef:ffff::1",
    "::ffff:1.1.1.1",
    "64:ff9b::1.1.1.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not AddressGuard(WebhookSettings()).allows(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed(address: str) -> None:
    assert AddressGuard(WebhookSettings()).allows(ip_address(address))


def test_networks_that_are_named_are_allowed_in_every_disguise() -> None:
    guard = AddressGuard(WebhookSettings(allowed_networks="10.1.0.0/16, fd00::/8"))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd12::1"):
        assert guard.allows(ip_address(address)), address
    for address in ("10.2.0.1", "127.0.0.1", "fe80::1"):
        assert not guard.allows(ip_address(address)), address


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://localhost:8000/",
        "http://LOCALHOST./",
        "http://a.localhost/",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/latest/meta-data",
        "http://169.254.169.254/latest/meta-data",
        "http://168.63.129.16/machine",
    ],
)
def test_registration_refuses_what_is_no_public_address_in_any_spelling(url: str) -> None:
    with pytest.raises(ServiceError) as caught:
        AddressGuard(WebhookSettings()).read_url(url)
    assert caught.value.code == "webhook-address-refused"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "http://",
        "nonsense",
        "http://user:password@example.com/",
        "http://user@example.com/",
        "http://example.com:99999/",
        "http://exa mple.com/",
        "https://example.com/" + "x" * 2000,
    ],
)
def test_registration_refuses_what_is_no_plain_url(office: PostOffice, url: str) -> None:
    answer = office.client.post("/webhooks", json={"url": url})
    assert_problem(answer, 422, "invalid-request")


def test_a_url_that_is_no_web_address_is_refused_in_words(office: PostOffice) -> None:
    answer = office.client.post("/webhooks", json={"url": "ftp://example.com/"})
    problem = assert_problem(answer, 422, "invalid-request")
    assert problem["detail"] == "url must be an http:// or https:// URL."


def test_registration_answers_422_for_a_private_address(office: PostOffice) -> None:
    answer = office.client.post("/webhooks", json={"url": "http://169.254.169.254/latest"})
    assert_problem(answer, 422, "webhook-address-refused")


def test_a_url_is_kept_as_it_is_sent() -> None:
    guard = AddressGuard(WebhookSettings())
    assert guard.read_url("HTTPS://Bücher.example/a b?q=ü#part") == (
        "https://xn--bcher-kva.example/a%20b?q=%C3%BC"
    )


class Names:
    """A DNS whose answers change."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise socket.gaierror("no such name")
        return answer


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (["10.0.0.1"], "address-refused"),
        (["169.254.169.254", "::1"], "address-refused"),
        ([], "name-not-resolved"),
    ],
)
def test_a_name_that_leads_nowhere_public_gets_no_request(
    office: PostOffice, answer: list[str], error: str
) -> None:
    with run_sender(office.settings, Names(answer)):
        office.register("http://receiver.example/")
        office.complete()
        delivery_id = office.only_delivery()
        (attempt,) = office.wait_for_attempts(delivery_id, 1)["attempts"]
    assert (attempt["error"], attempt["status_code"]) == (error, None)


def test_a_name_that_changes_its_mind_is_connected_to_as_it_was_checked(
    office: PostOffice,
) -> None:
    """Rebinding: the second answer would lead to the metadata service."""
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    with run_receiver() as receiver, run_sender(office.settings, names):
        office.register(f"http://receiver.example:{receiver.port}/hook")
        office.complete()
        request = receiver.next()
        assert request.headers["host"] == f"receiver.example:{receiver.port}"
        assert office.wait_for_end(request.id)["status"] == "delivered"
    # One question for one connection: there is no second answer to be fooled by.
    assert names.asked == ["receiver.example"]


def test_names_that_hang_delay_no_other_receiver(
    office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, never, asked = socket.getaddrinfo, threading.Event(), []

    def answer(host: Any, *parts: Any, **more: Any) -> Any:
        asked.append(host)
        if host in slow:
            never.wait(SECONDS)
            raise socket.gaierror("no such name")
        return look_up("127.0.0.1" if host == "quick.test" else host, *parts, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    # More than asyncio has threads of its own on two cores.
    slow = {f"slow{number}.test" for number in range(14)}
    try:
        with run_receiver() as receiver, run_sender(office.settings):
            for host in slow:
                office.register(f"http://{host}/")
            office.complete()
            wait_until(lambda: slow <= set(asked))
            for url in (receiver.url, f"http://quick.test:{receiver.port}/"):
                office.register(url)
            job_id = office.complete()
            told = [receiver.next().event["data"]["job_id"] for _ in range(2)]
            assert told == [job_id, job_id]
            # Two deliveries to one name wait for one answer.
            assert sorted(host for host in asked if host in slow) == sorted(slow)
            never.set()
    finally:
        never.set()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a key and its certificate for receiver.example, which senders trust."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(file), "-subj", "/CN=receiver.example"]
    command += ["-addext", "subjectAltName=DNS:receiver.example"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + file.read_text())
    return both


def test_the_certificate_is_checked_against_the_name_not_the_address(
    office: PostOffice, certificate: Path
) -> None:
    names = Names(["127.0.0.1"])
    with run_receiver(certificate=certificate) as receiver, run_sender(office.settings, names):
        office.register(f"https://receiver.example:{receiver.port}/")
        office.complete()
        assert office.wait_for_end(receiver.next().id)["status"] == "delivered"


def test_a_certificate_of_somebody_else_is_refused(office: PostOffice, certificate: Path) -> None:
    names = Names(["127.0.0.1"])
    with run_receiver(certificate=certificate) as receiver, run_sender(office.settings, names):
        office.register(f"https://other.example:{receiver.port}/")
        office.complete()
        delivery_id = office.only_delivery()
        (attempt,) = office.wait_for_attempts(delivery_id, 1)["attempts"]
        assert attempt["error"] == "connection-failed"
        assert receiver.is_quiet()


def test_a_refused_address_beside_a_good_one_is_passed_over(office: PostOffice) -> None:
    names = Names(["10.0.0.1", "127.0.0.1"])
    with run_receiver() as receiver, run_sender(office.settings, names):
        office.register(f"http://receiver.example:{receiver.port}/")
        office.complete()
        receiver.next()


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """An address that says nothing: its listener's queue is full, so Linux drops what comes."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(2):
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.connect((host, port))
        yield


@pytest.mark.parametrize("holes", [["127.0.0.2"], ["127.0.0.2", "127.0.0.3", "127.0.0.4"]])
def test_addresses_that_say_nothing_leave_time_for_the_next(
    office: PostOffice, holes: list[str]
) -> None:
    webhook = WebhookSettings(allowed_networks="127.0.0.0/8", timeout_seconds=2)
    settings = office.settings.model_copy(update={"webhook": webhook})
    names = Names([*holes, "127.0.0.1"])
    with run_receiver() as receiver, contextlib.ExitStack() as stack:
        for hole in holes:
            stack.enter_context(black_hole(hole, receiver.port))
        stack.enter_context(run_sender(settings, names))
        office.register(f"http://receiver.example:{receiver.port}/")
        office.complete()
        delivery = office.wait_for_attempts(office.only_delivery(), 1)
    assert delivery["status"] == "delivered"


def test_a_name_whose_addresses_all_say_nothing_is_given_up(office: PostOffice) -> None:
    webhook = WebhookSettings(allowed_networks="127.0.0.0/8", timeout_seconds=0.5)
    settings = office.settings.model_copy(update={"webhook": webhook})
    port = find_free_port()
    with contextlib.ExitStack() as stack:
        for hole in ("127.0.0.2", "127.0.0.3"):
            stack.enter_context(black_hole(hole, port))
        stack.enter_context(run_sender(settings, Names(["127.0.0.2", "127.0.0.3"])))
        office.register(f"http://receiver.example:{port}/")
        office.complete()
        (attempt,) = office.wait_for_attempts(office.only_delivery(), 1)["attempts"]
    assert (attempt["error"], attempt["status_code"]) == ("timed-out", None)


def test_a_proxy_in_the_environment_is_not_used(
    office: PostOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_receiver() as proxy, run_receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with run_sender(office.settings):
            office.register(receiver.url)
            office.complete()
            receiver.next()
        assert proxy.is_quiet()
