"""What a client may leave unfinished on a connection, and for how long."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.core.config import LimitSettings, Settings
from app.core.http_settings import HttpSettings
from app.main import create_app
from tests.api_server import run_api
from tests.raw_connection import FORM, Answer, RawConnection, form_head
from tests.service import wait_until

HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
SOON = 0.3  # the server looks once a second


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with run_api(create_app(settings)) as url:
        yield url


@contextmanager
def serve(settings: Settings, **changes: Any) -> Iterator[str]:
    """The API with other bounds than the usual."""
    changed = settings.model_copy(update={"http": HttpSettings(**changes)})
    with run_api(create_app(changed)) as url:
        yield url


def read_refusal(connection: RawConnection) -> tuple[int, str]:
    """The problem in the last answer on the connection."""
    answer = connection.read_answer()
    assert answer.headers["connection"] == "close"
    # What never became a request is answered as strictly as the rest.
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert connection.is_ended()
    return answer.problem()


# --- time -----------------------------------------------------------------------------------------


def test_a_new_connection_that_says_nothing_is_closed(settings: Settings) -> None:
    with serve(settings, head_seconds=SOON) as url, RawConnection(url) as silent:
        assert silent.is_ended()


def test_line_breaks_say_nothing(settings: Settings) -> None:
    with serve(settings, head_seconds=SOON) as url, RawConnection(url) as silent:
        assert silent.send(b"\r\n\r\n").is_ended()


@pytest.mark.parametrize("begun", [b"G", b"GET /health/live", HEAD, HEAD + b"X-Long: aaa"])
def test_a_head_that_is_not_completed_is_refused(settings: Settings, begun: bytes) -> None:
    with serve(settings, head_seconds=SOON) as url, RawConnection(url) as slow:
        assert read_refusal(slow.send(begun)) == (408, "slow-request")


def test_a_head_that_drips_is_refused_all_the_same(settings: Settings) -> None:
    with serve(settings, head_seconds=1) as url, RawConnection(url) as slow:
        slow.send(HEAD)
        while slow.hears_nothing(0.1):
            slow.send(b"X: y\r\n")
        assert read_refusal(slow) == (408, "slow-request")


def test_nor_may_the_second_request_be_left_unfinished(settings: Settings) -> None:
    with serve(settings, head_seconds=SOON) as url, RawConnection(url) as slow:
        assert slow.get().status == 200
        assert read_refusal(slow.send(HEAD)) == (408, "slow-request")


def test_what_comes_of_it_with_the_first_counts(settings: Settings) -> None:
    with serve(settings, head_seconds=SOON) as url, RawConnection(url) as slow:
        assert slow.send(HEAD + b"\r\n" + HEAD).read_answer().status == 200
        assert read_refusal(slow) == (408, "slow-request")


def test_a_connection_may_rest_between_requests(settings: Settings) -> None:
    with serve(settings, head_seconds=SOON, keep_alive_seconds=2) as url:
        with RawConnection(url) as resting, RawConnection(url) as silent:
            assert resting.get().status == 200
            assert silent.is_ended()
            assert resting.get().status == 200
            assert resting.is_ended()


def test_a_request_that_waits_is_not_resting(settings: Settings) -> None:
    with serve(settings, head_seconds=SOON, keep_alive_seconds=SOON) as url:
        with RawConnection(url) as uploading, RawConnection(url) as waiting:
            job_id = _submit(uploading)
            asked = f"GET /status/{job_id} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=3\r\n\r\n"
            waiting.send(asked.encode())
            assert uploading.is_ended()
            assert waiting.read_answer().status == 200


def _submit(connection: RawConnection) -> str:
    answer = connection.send(form_head() + FORM).read_answer()
    assert answer.status == 202
    return answer.headers["location"].removeprefix("/status/")


# --- heads ----------------------------------------------------------------------------------------


def test_a_head_may_have_32_kilobytes(url: str) -> None:
    head = HEAD + b"X: " + b"a" * (32_768 - 200) + b"\r\n\r\n"
    with RawConnection(url) as connection:
        assert connection.send(head).read_answer().status == 200


def test_a_head_may_have_100_fields(url: str) -> None:
    with RawConnection(url) as connection:
        assert connection.get("/health/live", *["X: y"] * 99).status == 200
        connection.send(HEAD + b"X: y\r\n" * 100 + b"\r\n")
        assert read_refusal(connection) == (431, "head-too-large")


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"a" * 33_000 + b"\r\n\r\n",
        HEAD + b"X" * 33_000 + b": a\r\n\r\n",
        HEAD + b"X-Some: %s\r\n" % (b"a" * 490) * 70 + b"\r\n",
        b"GET /" + b"a" * 33_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n" * 20_000,
    ],
    ids=["value", "name", "many", "address", "line breaks"],
)
def test_more_is_refused_however_it_comes(url: str, head: bytes, pieces: int) -> None:
    with RawConnection(url) as connection:
        size = len(head) // pieces
        for start in range(0, len(head), size):
            try:
                connection.send(head[start : start + size])
            except (ConnectionResetError, BrokenPipeError):
                break  # it was refused before the last piece
        assert read_refusal(connection) == (431, "head-too-large")


def test_more_is_refused_where_it_follows_another_request(url: str) -> None:
    with RawConnection(url) as connection:
        connection.send(HEAD + b"\r\n" + HEAD + b"X: " + b"a" * 33_000 + b"\r\n\r\n")
        assert connection.read_answer().status == 200
        assert read_refusal(connection) == (431, "head-too-large")


@pytest.mark.parametrize("begun", [HEAD + b"X: ", b"GET /", HEAD], ids=["value", "url", "fields"])
def test_a_hundred_megabytes_end_at_once(settings: Settings, begun: bytes) -> None:
    small = settings.model_copy(update={"limits": LimitSettings(file_size=1_000_000)})
    piece = b"X: y\r\n" * 10_000 if begun == HEAD else b"a" * 60_000
    with run_api(create_app(small)) as url, RawConnection(url) as bomb:
        # What the system buffers at both ends comes on top of twice MAX_FILE_SIZE.
        assert bomb.send(begun).send_while_taken(piece, 100_000_000) < 20_000_000


def test_what_can_not_be_read_is_refused(url: str) -> None:
    with RawConnection(url) as connection:
        assert read_refusal(connection.send(b"\x16\x03\x01 hello\r\n\r\n")) == (400, "bad-request")


def test_blanks_around_a_value_do_not_belong_to_it(url: str) -> None:
    with RawConnection(url) as connection:
        answer = connection.get("/health/live", "X-Request-ID: \t abc \t ")
        assert answer.headers["x-request-id"] == "abc"


# --- trailers -------------------------------------------------------------------------------------


def _in_chunks(body: bytes, trailers: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n%b" % (len(body), body, trailers)


def test_trailers_are_taken_and_left_aside(url: str) -> None:
    with RawConnection(url) as connection:
        upload = form_head("/classify", None) + _in_chunks(FORM, b"X-Request-ID: abc\r\n\r\n")
        answer = connection.send(upload).read_answer()
        assert answer.status == 202 and answer.headers["x-request-id"] != "abc"
        assert connection.get().status == 200


@pytest.mark.parametrize(
    "trailers",
    [
        b"X: y\r\n" * 101 + b"\r\n",
        b"X: " + b"a" * 33_000 + b"\r\n\r\n",
        b"X: " + b"a" * 150_000,
        b"X" * 150_000,
    ],
    ids=["fields", "value", "endless value", "endless name"],
)
def test_too_many_are_refused(url: str, trailers: bytes) -> None:
    with RawConnection(url) as connection:
        connection.send(form_head("/classify", None) + _in_chunks(FORM, trailers))
        assert read_refusal(connection) == (431, "head-too-large")


def test_a_chunks_extension_may_not_be_endless(url: str) -> None:
    with RawConnection(url) as connection:
        connection.send(form_head("/classify", None) + b"5;a=" + b"a" * 150_000)
        assert read_refusal(connection) == (431, "head-too-large")


# --- answers before the body has come -------------------------------------------------------------


def _refused_upload(length: int) -> bytes:
    return form_head("/classify", length).replace(b"multipart/form-data", b"text/plain")


def _assert_refused_early(answer: Answer) -> None:
    assert answer.problem() == (415, "not-multipart")
    assert answer.headers["connection"] == "close"


def test_who_still_sends_when_the_answer_is_there_gets_it(url: str) -> None:
    with RawConnection(url) as connection:
        connection.send(_refused_upload(8_000_000) + bytes(8_000_000))
        _assert_refused_early(connection.read_answer())
        assert connection.is_ended()


@pytest.mark.parametrize("field", [b"Connection: close", b"Connection: keep-alive"])
def test_a_client_that_would_leave_anyway_gets_it_too(url: str, field: bytes) -> None:
    head = _refused_upload(8_000_000).replace(b"Host: localhost", b"Host: localhost\r\n" + field)
    with RawConnection(url) as connection:
        connection.send(head + bytes(8_000_000))
        _assert_refused_early(connection.read_answer())


def test_who_goes_on_for_ever_is_cut_off(settings: Settings) -> None:
    small = settings.model_copy(update={"limits": LimitSettings(file_size=1_000_000)})
    with run_api(create_app(small)) as url, RawConnection(url) as endless:
        endless.send(_refused_upload(200_000_000))
        assert endless.send_while_taken(bytes(60_000), 100_000_000) < 20_000_000


def test_who_stops_sending_is_cut_off(settings: Settings) -> None:
    with serve(settings, discard_seconds=SOON) as url, RawConnection(url) as stalled:
        stalled.send(_refused_upload(1_000_000) + bytes(10_000))
        _assert_refused_early(stalled.read_answer())
        wait_until(stalled.is_cut_off)


def test_an_answer_behind_the_whole_body_keeps_the_connection(url: str) -> None:
    with RawConnection(url) as connection:
        answer = connection.send(_refused_upload(1000) + bytes(1000)).read_answer()
        assert answer.problem() == (415, "not-multipart")
        assert connection.get().status == 200


def test_who_waits_to_be_asked_for_the_body_is_refused_without(url: str) -> None:
    with RawConnection(url) as connection:
        head = _refused_upload(8_000_000).replace(b"Host:", b"Expect: 100-continue\r\nHost:")
        _assert_refused_early(connection.send(head).read_answer())


# --- many requests on one connection --------------------------------------------------------------


def test_requests_may_be_sent_ahead(url: str) -> None:
    with RawConnection(url) as connection:
        upload = form_head() + FORM
        connection.send((HEAD + b"\r\n" + upload) * 10)
        statuses = [connection.read_answer().status for _ in range(20)]
        assert statuses == [200, 202] * 10


def test_but_not_by_the_thousand(url: str) -> None:
    with RawConnection(url) as connection:
        job_id = _submit(connection)
        waiting = (
            f"GET /status/{job_id} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=1\r\n\r\n".encode()
        )
        connection.send(waiting + b"GET / HTTP/1.1\r\n\r\n" * 5000)
        answers = [connection.read_answer() for _ in range(202)]
        assert answers[-1].problem() == (400, "bad-request")
        assert connection.is_ended()


def test_head_and_expect_work_as_ever(url: str) -> None:
    with RawConnection(url) as connection:
        answer = connection.send(b"HEAD /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = answer.socket.recv(10_000)
        assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")
        connection.send(form_head("/classify", len(FORM), "Expect: 100-continue"))
        assert connection.socket.recv(10_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert connection.send(FORM).read_answer().status == 202


def test_a_body_that_breaks_ends_the_answer_that_has_begun(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RawConnection(url) as other, RawConnection(url) as broken, RawConnection(url) as whole:
        job_id = _submit(other)
        asked = f"GET /status/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        broken.send(asked.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        whole.send(asked.encode() + b"\r\n")
        for watching in (broken, whole):
            assert watching.socket.recv(12) == b"HTTP/1.1 200"
        broken.send(b"no chunk\r\n")
        _read_to_end(broken)
        # There is more to be said now.
        other.send(f"POST /jobs/{job_id}/cancel HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert other.read_answer().status < 300
        assert b'"cancelled"' in _read_to_end(whole)
    assert not [record for record in caplog.records if record.exc_info]


def _read_to_end(connection: RawConnection) -> bytes:
    read = b""
    while piece := connection.socket.recv(65_536):
        read += piece
    return read


# --- the other end --------------------------------------------------------------------------------


def test_who_takes_nothing_of_the_answers_is_cut_off(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever lies between: the system sees that nothing is taken."""
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n"
    with serve(settings, stall_seconds=1) as url, RawConnection(url) as deaf:
        deaf.send(asked * 100)
        wait_until(deaf.is_cut_off)
    assert not [record for record in caplog.records if record.exc_info]
