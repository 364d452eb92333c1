"""The web page while jobs take their time, end otherwise, or the connection is lost."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from app.core import keys
from app.core.config import QueueSettings, Settings
from app.jobs.job import Answer, Claim, Outcome, Stage
from app.main import create_app
from tests.api_server import run_api
from tests.browser.page import CAT, COFFEE, ROCKET, Page
from tests.faults.proxy import TcpProxy
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS
from tests.test_waiting import Desk

_HOLDERS = count()


@pytest.fixture
def line(desk: Desk) -> Iterator[TcpProxy]:
    """A way to the API that can be cut."""
    with TcpProxy(desk.url.removeprefix("http://")) as proxy:
        yield proxy


@pytest.fixture
def six(tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy(CAT, tmp_path / f"{number}.jpg")) for number in range(6)]


def address(line: TcpProxy) -> str:
    return f"http://127.0.0.1:{line.port}"


def claim_one(desk: Desk) -> Claim:
    """Claim the next job, as a worker process of its own."""
    answer = Answer("a-model", "7", "torch")
    (claim,) = desk.ledger.take_turn((), f"w{next(_HOLDERS)}", answer, 1).claims
    return claim


def complete_all(desk: Desk, number: int) -> None:
    """Do the work of a worker until ``number`` jobs are completed."""
    for _ in range(number):
        desk.ledger.finish([Outcome.completed(claim_one(desk), PREDICTIONS)])


def queued(desk: Desk) -> int:
    return int(desk.redis.llen(keys.QUEUE))


# --- Progress -------------------------------------------------------------------------------------


def test_progress_is_shown_as_it_happens(page: Page, desk: Desk) -> None:
    page.open(desk.url)
    page.choose(CAT)
    page.wait_for_states("pending")
    claim = claim_one(desk)
    page.wait_for_states("processing")
    for progress in (30, 80):
        desk.ledger.report_progress([claim], progress, Stage.CLASSIFYING)
        wait_until(lambda: page.progress() == [progress])
        assert f"Classifying {progress} %" in page.text_of("cat.jpg")
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
    page.wait_for_states("completed")
    assert page.progress() == []


def test_jobs_that_take_long_do_not_hide_others(page: Page, desk: Desk, six: list[Path]) -> None:
    """Only a few are followed at a time: a browser has six connections."""
    page.open(desk.url)
    page.choose(*six)
    page.wait_for_states(*["pending"] * 6)
    slow = [claim_one(desk) for _ in range(3)]
    complete_all(desk, 3)
    wait_until(lambda: sorted(page.states()) == ["completed"] * 3 + ["processing"] * 3)
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in slow])
    page.wait_for_states(*["completed"] * 6)


def test_a_job_is_followed_on_after_a_reload(page: Page, desk: Desk) -> None:
    page.open(desk.url)
    page.choose(CAT)
    page.wait_for_states("pending")
    page.browser.refresh()
    page.wait_for_states("pending")
    complete_all(desk, 1)
    page.wait_for_states("completed")
    assert queued(desk) == 0


def test_jobs_that_were_erased_while_the_page_was_closed_are_gone(
    page: Page, desk: Desk, six: list[Path]
) -> None:
    """More than are followed at a time: each that ends so makes room for the next."""
    page.open(desk.url)
    page.choose(*six)
    page.wait_for_states(*["pending"] * 6)
    ids = [entry["id"] for entry in page.remembered()]
    page.browser.get("about:blank")
    for job_id in ids:
        assert desk.ask("DELETE", f"/jobs/{job_id}").result().status_code == 204
    page.browser.get(desk.url)
    page.wait_for_states(*["gone"] * 6)
    assert "erased" in page.text_of("0.jpg")


def test_the_page_says_how_many_jobs_wait_as_soon_as_its_own_change_that(
    page: Page, desk: Desk
) -> None:
    # The regular look at the service's health, every five seconds, never comes.
    never = """
        const { setTimeout: wait } = window;
        window.setTimeout = (call, pause) => (pause > 4000 ? 0 : wait(call, pause));
    """
    script = page.command("Page.addScriptToEvaluateOnNewDocument", source=never)
    try:
        page.open(desk.url)
        wait_until(lambda: " 0 waiting " in page.find("#health").text)
        page.choose(CAT, COFFEE)
        wait_until(lambda: " 2 waiting " in page.find("#health").text)
        complete_all(desk, 2)
        wait_until(lambda: " 0 waiting " in page.find("#health").text)
    finally:
        page.command("Page.removeScriptToEvaluateOnNewDocument", **script)
        page.browser.get("about:blank")  # an API with open streams does not end


# --- Cancel and retry -----------------------------------------------------------------------------


def test_a_pending_job_is_cancelled_and_can_be_tried_again(page: Page, desk: Desk) -> None:
    page.open(desk.url)
    page.choose(CAT)
    page.wait_for_states("pending")
    (before,) = page.remembered()
    page.press("cancel", "cat.jpg")
    page.wait_for_states("cancelled")
    status = desk.ask("GET", f"/status/{before['id']}").result().json()["status"]
    assert status == "cancelled"

    page.press("retry", "cat.jpg")
    page.wait_for_states("pending")
    complete_all(desk, 1)
    page.wait_for_states("completed")
    (after,) = page.remembered()
    assert after["id"] != before["id"]


def test_a_job_under_way_says_that_it_is_being_cancelled(page: Page, desk: Desk) -> None:
    page.open(desk.url)
    page.choose(CAT)
    page.wait_for_states("pending")
    claim = claim_one(desk)
    page.wait_for_states("processing")
    page.press("cancel", "cat.jpg")
    wait_until(lambda: "cancelling" in page.text_of("cat.jpg"))
    # No worker looks up here, so its result comes first and wins.
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
    page.wait_for_states("completed")


def test_what_waits_in_the_page_is_cancelled_without_being_sent(
    page: Page, desk: Desk, line: TcpProxy
) -> None:
    page.open(address(line))
    wait_until(lambda: page.find("#health").get_attribute("data-status") != "unknown")
    line.refuse()
    page.run("dispatchEvent(new Event('online'))")
    wait_until(lambda: page.find("#connection").is_displayed())
    page.choose(CAT, COFFEE)
    page.wait_for_states("waiting", "waiting")
    page.press("cancel", "cat.jpg")
    page.wait_for_states("cancelled", "waiting")
    line.pass_on()
    page.wait_for_states("cancelled", "pending")
    assert queued(desk) == 1


def test_a_file_that_is_gone_when_it_can_be_sent_has_to_be_chosen_again(
    page: Page, desk: Desk, line: TcpProxy, six: list[Path]
) -> None:
    page.open(address(line))
    line.refuse()
    page.run("dispatchEvent(new Event('online'))")
    wait_until(lambda: page.find("#connection").is_displayed())
    page.choose(six[0])
    page.wait_for_states("waiting")
    six[0].unlink()
    line.pass_on()
    page.wait_for_states("refused")
    text = page.text_of("0.jpg")
    assert "Choose it again." in text
    assert "Retry" not in text


def test_our_failure_can_be_tried_again(page: Page, desk: Desk) -> None:
    page.open(desk.url)
    page.choose(ROCKET)
    page.wait_for_states("pending")
    failure = Outcome.failed(claim_one(desk), "classification-failed", "Submit it again.")
    desk.ledger.finish([failure])
    page.wait_for_states("failed")
    assert "Submit it again." in page.text_of("rocket.jpg")
    page.press("retry", "rocket.jpg")
    page.wait_for_states("pending")
    complete_all(desk, 1)
    page.wait_for_states("completed")
    assert "Submit it again." not in page.text_of("rocket.jpg")


def test_a_full_queue_is_waited_for(page: Page, settings: Settings, six: list[Path]) -> None:
    limits = settings.model_copy(update={"queue": QueueSettings(max_jobs=2)})
    with run_api(create_app(limits)) as url:
        desk = Desk(url, limits)
        page.open(url)
        page.choose(*six[:3])
        wait_until(lambda: sorted(page.states()) == ["pending", "pending", "waiting"])
        waiting = page.states().index("waiting")
        wait_until(lambda: "too much work, tries again" in page.text_of(f"{waiting}.jpg"))
        complete_all(desk, 2)
        wait_until(lambda: sorted(page.states()) == ["completed", "completed", "pending"])
        complete_all(desk, 1)
        page.wait_for_states(*["completed"] * 3)
        page.browser.get("about:blank")


# --- A lost connection ----------------------------------------------------------------------------


def test_what_was_sent_when_the_connection_was_lost_is_sent_once(
    page: Page, desk: Desk, line: TcpProxy, six: list[Path]
) -> None:
    page.open(address(line))
    wait_until(lambda: page.find("#health").get_attribute("data-status") != "unknown")
    # Uploads arrive two seconds before their answers do: cut in between.
    line.delay(4)
    page.choose(*six)
    wait_until(lambda: queued(desk) > 0)
    line.refuse()
    wait_until(lambda: page.find("#connection").is_displayed())
    assert "Connection lost" in page.find("#connection").text
    assert "on hold" in page.text_of("5.jpg")
    assert {entry["state"] for entry in page.remembered()} <= {"pending"}

    line.pass_on()
    page.wait_for_states(*["pending"] * 6)
    assert not page.find("#connection").is_displayed()
    assert queued(desk) == 6
    complete_all(desk, 6)
    page.wait_for_states(*["completed"] * 6)


def test_what_happened_while_the_connection_was_lost_is_learned(
    page: Page, desk: Desk, line: TcpProxy
) -> None:
    page.open(address(line))
    page.choose(CAT, COFFEE, ROCKET)
    page.wait_for_states(*["pending"] * 3)
    line.refuse()
    wait_until(lambda: page.find("#connection").is_displayed())
    complete_all(desk, 3)
    assert page.states() == ["pending"] * 3
    line.pass_on()
    page.wait_for_states(*["completed"] * 3)
    assert not page.find("#connection").is_displayed()
