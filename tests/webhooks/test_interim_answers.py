"""Receivers that answer 1xx: a few are passed over, more end the attempt."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.webhooks.sending.interim_answers import MOST_INTERIM_ANSWERS
from tests.webhooks.post_office import PostOffice
from tests.webhooks.receiver import SECONDS, run_receiver

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
FINAL = b"HTTP/1.1 204 No Content\r\n\r\n"


class Talker:
    """A receiver that says the pieces of ``answer`` one by one, for ever if told so."""

    def __init__(self, *answer: bytes, endless: bool = False) -> None:
        self.hung_up = threading.Event()
        self.sent = 0
        self._answer, self._endless = answer, endless
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(SECONDS)
            connection.recv(65_536)
            try:
                while True:
                    for piece in self._answer:
                        connection.sendall(piece)
                        self.sent += len(piece)
                    if not self._endless:
                        connection.recv(65_536)
                        return
            except OSError:
                self.hung_up.set()

    def stop(self) -> None:
        self._listener.close()


@contextmanager
def run_talker(*answer: bytes, endless: bool = False) -> Iterator[Talker]:
    talker = Talker(*answer, endless=endless)
    try:
        yield talker
    finally:
        talker.stop()


def attempt(office: PostOffice, talker: Talker) -> tuple[str | None, int | None]:
    """Error and status of the first attempt to deliver there."""
    webhook = office.register(talker.url)
    office.complete()
    (delivery,) = wait_for_delivery(office, webhook["webhook_id"])
    first, *_ = office.wait_for_attempts(delivery, 1)["attempts"]
    return first["error"], first["status_code"]


def wait_for_delivery(office: PostOffice, webhook_id: str) -> list[str]:
    office.only_delivery()
    return [item["delivery_id"] for item in office.deliveries(webhook_id=webhook_id)]


@pytest.mark.parametrize(
    "answer",
    [
        (INTERIM * MOST_INTERIM_ANSWERS + FINAL,),
        (INTERIM,) * MOST_INTERIM_ANSWERS + (FINAL,),
        (b"HTTP/1.1 100 Continue\r\n", b"\r\nHTTP/1.1 20", b"4 No Content\r\n\r\n"),
    ],
)
def test_a_few_are_passed_over(post_office: PostOffice, answer: tuple[bytes, ...]) -> None:
    with run_talker(*answer) as talker:
        assert attempt(post_office, talker) == (None, 204)


@pytest.mark.parametrize(
    "answer",
    [
        (INTERIM * (MOST_INTERIM_ANSWERS + 1) + FINAL,),
        tuple(bytes([byte]) for byte in INTERIM * (MOST_INTERIM_ANSWERS + 1)),
        (b"HTTP/1.0 199 x\n\n" * (MOST_INTERIM_ANSWERS + 1) + FINAL,),
    ],
)
def test_more_end_the_attempt(post_office: PostOffice, answer: tuple[bytes, ...]) -> None:
    with run_talker(*answer) as talker:
        assert attempt(post_office, talker) == ("connection-failed", None)


def test_a_receiver_without_end_is_hung_up_on_and_delays_nobody(post_office: PostOffice) -> None:
    with run_talker(INTERIM * 1000, endless=True) as talker, run_receiver() as receiver:
        post_office.register(receiver.url)
        post_office.register(talker.url)
        for _ in range(3):
            post_office.complete()
        assert talker.hung_up.wait(SECONDS)
        for _ in range(3):
            receiver.next()


def test_what_comes_after_the_answer_is_no_interim_answer(post_office: PostOffice) -> None:
    """A body may hold what it likes."""
    body = INTERIM * (MOST_INTERIM_ANSWERS + 1)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with run_talker(head, body) as talker:
        assert attempt(post_office, talker) == (None, 200)
