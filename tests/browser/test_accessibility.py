"""Nobody is left out: axe finds nothing, small screens show everything."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.browser.page import CAT, COFFEE, SAMPLES, Page
from tests.service import RunningService, wait_until
from tests.test_waiting import Desk

AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")

# The screens of a small phone and of a laptop, in pixels.
WIDTHS = (360, 1280)


def find_violations(page: Page) -> list[str]:
    """What axe objects to, each with where."""
    page.command("Runtime.evaluate", expression=AXE)
    answer: dict[str, Any] = page.browser.execute_async_script(
        "axe.run().then(arguments[arguments.length - 1])"
    )
    assert len(answer["passes"]) > 10
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in answer["violations"]
        for node in violation["nodes"]
    ]


def is_too_wide(page: Page) -> bool:
    script = "const { scrollWidth, clientWidth } = document.documentElement;"
    return bool(page.run(script + "return scrollWidth > clientWidth"))


def fill(page: Page, damaged_image: Path) -> None:
    page.choose(CAT, COFFEE, SAMPLES / "README.md", damaged_image)
    page.wait_until_at_rest(4)


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing(
    page: Page, service: RunningService, damaged_image: Path, width: int, is_dark: bool
) -> None:
    page.open(service.url, width, is_dark)
    wait_until(lambda: page.find("#health").get_attribute("data-status") == "healthy")
    assert find_violations(page) == []
    fill(page, damaged_image)
    assert find_violations(page) == []
    page.find("#clear").click()
    assert find_violations(page) == []


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_while_jobs_wait_and_the_service_is_away(
    page: Page, desk: Desk, is_dark: bool
) -> None:
    page.open(desk.url, 360, is_dark)
    page.choose(CAT, COFFEE)
    page.wait_for_states("pending", "pending")
    assert find_violations(page) == []
    page.command("Network.enable")
    away = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.command("Network.emulateNetworkConditions", offline=True, **away)
    wait_until(lambda: page.find("#connection").is_displayed())
    assert find_violations(page) == []
    page.command("Network.emulateNetworkConditions", offline=False, **away)
    wait_until(lambda: not page.find("#connection").is_displayed())


def test_a_small_screen_shows_everything(
    page: Page, service: RunningService, damaged_image: Path, tmp_path: Path
) -> None:
    long = tmp_path / f"{'a-very-long-name-' * 9}.jpg"
    long.write_bytes(CAT.read_bytes())
    page.open(service.url, 360)
    assert not is_too_wide(page)
    fill(page, damaged_image)
    page.choose(long)
    page.wait_until_at_rest(5)
    assert not is_too_wide(page)
    page.resize(320)
    assert not is_too_wide(page)


@pytest.mark.parametrize("width", [320, 360])
def test_the_header_keeps_its_words_whole_on_a_small_screen(
    page: Page, service: RunningService, width: int
) -> None:
    """Even in the wide letters of a system without the page's font."""
    page.open(service.url, width)
    page.run("document.documentElement.style.fontFamily = 'DejaVu Sans, Verdana, sans-serif'")
    count_lines = """
        const range = document.createRange();
        range.selectNodeContents(document.querySelector(arguments[0]).lastChild);
        return new Set([...range.getClientRects()].map((box) => box.top)).size;
    """
    assert page.run(count_lines, "nav a") == 1
    if width == 360:
        assert page.run(count_lines, "h1") == 1


def test_the_end_of_a_job_is_announced(page: Page, service: RunningService) -> None:
    page.open(service.url)
    page.choose(COFFEE)
    news = page.find("#news")
    wait_until(lambda: "coffee.jpg: espresso, " in str(news.get_attribute("textContent")))
    assert news.aria_role == "status"
