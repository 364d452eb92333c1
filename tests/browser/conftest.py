"""One browser for all tests of the web page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.config import Settings
from app.main import create_app
from tests.api_server import run_api
from tests.browser.page import PROGRAMS, Page, create_browser
from tests.test_waiting import Desk


@pytest.fixture(scope="session")
def browsing() -> Iterator[Page]:
    if not all(PROGRAMS.values()):
        pytest.skip("no browser: install Debian's chromium and chromium-driver")
    browser = create_browser()
    yield Page(browser)
    browser.quit()


@pytest.fixture
def page(browsing: Page) -> Iterator[Page]:
    """A browser; afterwards nothing of the page may have run into its own security policy."""
    browsing.violations()
    yield browsing
    violations = browsing.violations()
    browsing.browser.get("about:blank")
    assert violations == []


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    """The API, and a hand that does a worker's work when told to."""
    with run_api(create_app(settings)) as url:
        yield Desk(url, settings)


@pytest.fixture
def damaged_image(tmp_path: Path) -> Path:
    """A photograph whose transfer broke off."""
    file = tmp_path / "half.jpg"
    whole = (Path(__file__).parents[2] / "app" / "samples" / "coffee.jpg").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    return file
