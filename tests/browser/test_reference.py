"""``/docs`` and ``/redoc`` in a browser: all there, and nothing from anywhere else."""

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

from app.core.config import AllowedSettings, Settings
from app.main import create_app
from tests.api_server import run_api
from tests.browser.page import Page
from tests.service import wait_until
from tests.test_waiting import Desk

OPERATION = "#operations-health-get_live"


def text_of(page: Page) -> str:
    return page.find("body").text


def click(page: Page, selector: str) -> None:
    """Click what is there or comes, above or below the fold."""

    def is_clicked() -> bool:
        with contextlib.suppress(WebDriverException):
            page.run("arguments[0].scrollIntoView({block: 'center'})", page.find(selector))
            page.find(selector).click()
            return True
        return False

    wait_until(is_clicked)


def list_hosts(page: Page) -> set[str]:
    """Where the page and all that it fetched came from."""
    script = """return [location.href, ...performance.getEntriesByType('resource')
        .map((entry) => entry.name)]"""
    addresses = [urlsplit(address) for address in page.run(script)]
    return {address.netloc for address in addresses if address.scheme != "data"}


def test_swagger_ui_shows_the_contract_and_calls_the_service(page: Page, desk: Desk) -> None:
    page.open(f"{desk.url}/docs")
    wait_until(lambda: "Submit an image" in text_of(page))
    click(page, f"{OPERATION} .opblock-summary-control")
    click(page, f"{OPERATION} .try-out__btn")
    click(page, f"{OPERATION} .execute")
    wait_until(lambda: '"status": "live"' in text_of(page))
    assert f"{desk.url}/v1/health/live" in text_of(page)
    assert list_hosts(page) == {urlsplit(desk.url).netloc}


def test_redoc_shows_the_contract_and_finds_in_it(page: Page, desk: Desk) -> None:
    page.open(f"{desk.url}/v1/redoc")
    wait_until(lambda: "Submit an image" in text_of(page))
    page.find("[role=search] input").send_keys("webhook")
    wait_until(lambda: page.browser.find_elements(By.CSS_SELECTOR, "[role=search] [role=menuitem]"))
    assert list_hosts(page) == {urlsplit(desk.url).netloc}


@pytest.fixture
def other_url(settings: Settings) -> Iterator[str]:
    """The service under another name than its page has: another site to a browser."""
    named = settings.model_copy(update={"allowed": AllowedSettings(hosts="*")})
    with run_api(create_app(named)) as url:
        yield url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/health"])
def test_no_page_of_others_shows_them_in_a_frame(browsing: Page, other_url: str, path: str) -> None:
    browser = browsing.browser
    browser.get("data:text/html,<title>evil</title>")
    browsing.run("document.body.innerHTML = `<iframe src=${arguments[0]}>`", other_url + path)
    browser.switch_to.frame(0)
    wait_until(lambda: browsing.run("return location.href") != "about:blank")
    # Where Chromium explains why it shows nothing.
    assert browsing.run("return location.protocol") == "chrome-error:"
    browser.get("about:blank")
