"""Draws the pictures of the web page in docs/pictures: ``python -m tests.browser.pictures``."""

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.page import CAT, COFFEE, ROCKET, Page, create_browser
from tests.service import RunningService, wait_until

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"

# Widths of a small phone and of a laptop, with heights that show the page without much below it.
SCREENS = {"phone": (360, 740), "laptop": (1280, 870)}


def _make_files(folder: Path) -> list[Path]:
    """What somebody might drop: three photographs, and one whose transfer broke off."""
    broken = folder / "holiday.jpg"
    whole = CAT.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    return [CAT, COFFEE, ROCKET, broken]


def _save(page: Page, name: str) -> None:
    data = base64.b64decode(page.command("Page.captureScreenshot", format="png")["data"])
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    # A palette makes them a third of the size. The rounds of k-means keep flat colours as they are.
    small = picture.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=2)
    small.save(FOLDER / f"{name}.png", optimize=True)


def draw() -> None:
    """Write a picture of the page for each screen and each colour scheme."""
    with tempfile.TemporaryDirectory() as folder:
        service = RunningService(Path(folder) / "data")
        browser = create_browser()
        page = Page(browser)
        try:
            for screen, (width, height) in SCREENS.items():
                for scheme in ("light", "dark"):
                    page.open(service.url, width, is_dark=scheme == "dark")
                    page.resize(width, height)
                    wait_until(lambda: "1 worker" in page.find("#health").text)
                    page.choose(*_make_files(Path(folder)))
                    page.wait_until_at_rest(4)
                    page.run("document.activeElement.blur(); scrollTo(0, 0)")
                    _save(page, f"page_{screen}_{scheme}")
        finally:
            browser.quit()
            service.stop()


if __name__ == "__main__":
    draw()
