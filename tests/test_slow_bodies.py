"""How long the body of a request is waited for."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from app.api.bodies import Patience
from app.core import keys
from app.core.config import Settings
from app.core.http_settings import HttpSettings
from app.core.tally import Tally
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_server import run_api
from tests.raw_connection import FORM, RawConnection, form_head
from tests.service import wait_until

KEY = "Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"
JSON_HEAD = (
    b"POST /webhooks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n\r\n"
)


@contextmanager
def serve(settings: Settings, **changes: Any) -> Iterator[str]:
    """The API with other bounds than the usual."""
    changed = settings.model_copy(update={"http": HttpSettings(**changes)})
    with run_api(create_app(changed)) as url:
        yield url


# --- patience -------------------------------------------------------------------------------------


@pytest.fixture
def patience() -> Patience:
    return Patience(HttpSettings(), longest_seconds=600)


def test_a_body_may_bring_nothing_for_ten_seconds(patience: Patience) -> None:
    assert patience.left() == 10
    patience.account(9, 0)
    assert patience.left() == 1


def test_a_kilobyte_a_second_is_enough_until_the_time_is_over(patience: Patience) -> None:
    for _ in range(599):
        assert patience.left() > 0
        patience.account(1, 1024)
    assert patience.left() == 1
    patience.account(1, 1024)
    assert patience.left() == 0


def test_less_is_not(patience: Patience) -> None:
    for _ in range(20):
        patience.account(1, 512)
    assert patience.left() == 0


def test_what_came_fast_may_pause_but_not_for_long(patience: Patience) -> None:
    patience.account(1, 5_000_000)
    assert patience.left() == 20


def test_time_in_which_nobody_reads_does_not_count(patience: Patience) -> None:
    patience.account(0, 60_000)
    assert patience.left() == 20


# --- over a connection ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [
        form_head(),
        form_head() + FORM[:-100],
        form_head("/classify", None),
        form_head("/classify", None) + b"5\r\n--b\r\n\r\n",
        form_head("/classify", None) + b"%x\r\n%b\r\n0\r\n" % (len(FORM), FORM),
        form_head("/v1/classify"),
        form_head("/%63lassify") + FORM[:1000],
        form_head("/batches") + FORM[:1000],
        form_head("/batches", None) + b"%x\r\n" % len(FORM) + FORM[:1000],
        form_head("/classify", len(FORM), KEY) + FORM[:1000],
        JSON_HEAD + b"{",
    ],
)
def test_who_stops_in_the_middle_is_refused(settings: Settings, begun: bytes) -> None:
    with serve(settings, body_grace_seconds=0.2) as url, RawConnection(url) as stalled:
        answer = stalled.send(begun).read_answer()
        assert answer.problem() == (408, "slow-upload")
        assert answer.headers["connection"] == "close"
        assert stalled.is_ended()
    assert not os.listdir(payload_folder(settings))


@pytest.mark.parametrize(
    ("bound", "begun"),
    [
        ("upload_seconds", form_head()),
        ("batch_seconds", form_head("/batches")),
        ("json_seconds", JSON_HEAD + b" "),
    ],
)
def test_a_body_that_comes_and_comes_is_refused_when_its_time_is_over(
    settings: Settings, bound: str, begun: bytes
) -> None:
    with serve(settings, **{bound: 1}, body_bytes_per_second=1) as url:
        with RawConnection(url) as dripping:
            dripping.send(begun)
            while dripping.hears_nothing(0.05):
                dripping.send(begun[-1:])
            assert dripping.read_answer().problem() == (408, "slow-upload")


def test_a_slow_body_that_brings_enough_is_taken(settings: Settings) -> None:
    pieces = [
        FORM[start : start + len(FORM) // 12] for start in range(0, len(FORM), len(FORM) // 12)
    ]
    with serve(settings, body_grace_seconds=0.5, body_bytes_per_second=len(FORM) // 4) as url:
        with RawConnection(url) as slow:
            slow.send(form_head())
            for piece in pieces[:-1]:
                slow.send(piece)
                assert slow.hears_nothing(0.1)
            assert slow.send(pieces[-1]).read_answer().status == 202


def test_an_upload_that_stalls_frees_its_key(settings: Settings) -> None:
    upload = form_head("/classify", len(FORM), KEY) + FORM
    with serve(settings, body_grace_seconds=0.5) as url:
        with RawConnection(url) as stalled, RawConnection(url) as again:
            stalled.send(upload[:-100])
            wait_until(lambda: _count_keys(settings))
            assert again.send(upload).read_answer().problem()[1] == "idempotency-key-in-use"
            assert stalled.read_answer().problem() == (408, "slow-upload")
            answer = again.send(upload).read_answer()
            assert (answer.status, "idempotency-replayed" in answer.headers) == (202, False)


def _count_keys(settings: Settings) -> int:
    with redis.Redis.from_url(settings.redis.url) as client:
        return len(client.keys(keys.IDEMPOTENCY + "*"))


def test_slow_bodies_fill_no_log(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(settings, body_grace_seconds=0.1) as url:
        for _ in range(5):
            with RawConnection(url) as stalled:
                assert stalled.send(form_head()).read_answer().status == 408
    log = capsys.readouterr().err
    assert log.count("slow-upload") <= 1
    assert "Traceback" not in log and "408" not in log


# --- telling of it --------------------------------------------------------------------------------


def test_what_happens_too_often_is_counted_and_told_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    tally = Tally(logging.getLogger("tally"), "refused: %s", clock=lambda: now)

    async def refuse(*names: str) -> None:
        for name in names:
            tally.count(name)

    asyncio.run(refuse("slow", *["slow", "large"] * 3))
    now = 60.0
    asyncio.run(refuse("slow"))
    assert caplog.messages == ["refused: 1 × slow", "refused: 4 × slow, 3 × large"]


def test_what_happened_last_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally(logging.getLogger("tally"), "refused: %s", seconds=0.05)

    async def refuse() -> None:
        for _ in range(4):
            tally.count("slow")
        async with asyncio.timeout(10):
            while len(caplog.messages) < 2:
                await asyncio.sleep(0.01)

    asyncio.run(refuse())
    assert caplog.messages == ["refused: 1 × slow", "refused: 3 × slow"]
