"""The web page in a headless Chromium, as a person works with it."""

import base64
import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.service import wait_until

SAMPLES = Path(__file__).parents[2] / "app" / "samples"
CAT, COFFEE, ROCKET = (SAMPLES / f"{name}.jpg" for name in ("cat", "coffee", "rocket"))

PROGRAMS = {"chromium": shutil.which("chromium"), "chromedriver": shutil.which("chromedriver")}

# Everything an image goes through before it is at rest.
UNDER_WAY = ("waiting", "sending", "pending", "processing")

# Files that JavaScript makes and hands over as a drop or a paste does: ``arguments`` are the
# event's name, the property that carries the files, and their names with Base64 contents.
_HAND_OVER = """
const [kind, property, files] = arguments;
const transfer = new DataTransfer();
for (const [name, content] of files) {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
}
const event = new Event(kind, { bubbles: true, cancelable: true });
Object.defineProperty(event, property, { value: transfer });
document.body.dispatchEvent(event);
return event.defaultPrevented;
"""


def create_browser() -> webdriver.Chrome:
    """A Chromium without a window, its profile empty."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(PROGRAMS["chromium"])
    # The sandbox refuses root, which is who runs tests in containers; their /dev/shm is small.
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # The page asks before it is left with images unsent; tests leave it anyway.
    options.set_capability("unhandledPromptBehavior", "accept")
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(PROGRAMS["chromedriver"])
    )


class Page:
    """The page at ``url``, opened when first asked for."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser
        self.url = ""

    def open(self, url: str, width: int = 1280, is_dark: bool = False) -> None:
        """Go there with a screen of this width, with nothing remembered from before."""
        self.url = url
        self.resize(width)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.command("Emulation.setEmulatedMedia", features=[scheme, still])
        self.command("Storage.clearDataForOrigin", origin=url, storageTypes="all")
        self.browser.get(url)

    def resize(self, width: int, height: int = 900) -> None:
        """Make the screen so large, in pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def command(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the Chrome DevTools Protocol."""
        answer: dict[str, Any] = self.browser.execute_cdp_cmd(name, parameters)
        return answer

    def find(self, selector: str) -> WebElement:
        """The first element that matches."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; gives what it returns."""
        return self.browser.execute_script(script, *arguments)

    # --- What a person does -----------------------------------------------------------------------

    def choose(self, *files: Path) -> None:
        """Choose files in the browser's dialog."""
        self.find("#files").send_keys("\n".join(str(file) for file in files))

    def drop(self, *files: Path) -> bool:
        """Drop files on the page; whether it took them."""
        return self._hand_over("drop", "dataTransfer", files)

    def drag(self, *paths: Path) -> None:
        """Drag files and folders from the desktop, and drop them on the page."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=50, y=150, data=data)

    def paste(self, *files: Path) -> None:
        """Paste files into the page."""
        self._hand_over("paste", "clipboardData", files)

    def _hand_over(self, kind: str, member: str, files: Iterable[Path]) -> bool:
        contents = [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
        return bool(self.run(_HAND_OVER, kind, member, contents))

    def press(self, action: str, name: str) -> None:
        """Press a button of the image with this name."""
        card = next(card for card in self._cards() if self._text(card, "h3") == name)
        card.find_element(By.CSS_SELECTOR, f"[data-action={action}]").click()

    # --- What a person sees -----------------------------------------------------------------------

    def _cards(self) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, ".card")

    def _text(self, card: WebElement, selector: str) -> str:
        return card.find_element(By.CSS_SELECTOR, selector).text

    def states(self) -> list[str]:
        """The state of each image, in the page's order."""
        script = "return [...document.querySelectorAll('.card')].map((card) => card.dataset.state)"
        states: list[str] = self.run(script)
        return states

    def text_of(self, name: str) -> str:
        """All that is written about the image with this name; empty while there is none."""
        with suppress(StaleElementReferenceException):
            for card in self._cards():
                if self._text(card, "h3") == name:
                    return card.text
        return ""

    def predictions_of(self, name: str) -> list[tuple[str, str]]:
        """Labels and percentages of the image with this name."""
        card = next(card for card in self._cards() if self._text(card, "h3") == name)
        rows = card.find_elements(By.CSS_SELECTOR, ".predictions li")
        return [(self._text(row, ".label"), self._text(row, ".share")) for row in rows]

    def progress(self) -> list[int | None]:
        """What the bars show, in percent; ``None`` for those that only move."""
        script = """return [...document.querySelectorAll('progress:not([hidden])')]
            .map((bar) => bar.hasAttribute('value') ? bar.value : null)"""
        values: list[int | None] = self.run(script)
        return values

    def wait_for_states(self, *states: str, seconds: float = 30) -> None:
        """Wait until the images have these states, in the page's order."""
        wait_until(lambda: self.states() == list(states), seconds)

    def wait_until_at_rest(self, count: int, seconds: float = 60) -> None:
        """Wait until there are ``count`` images and nothing happens to them any more."""

        def is_at_rest() -> bool:
            states = self.states()
            return len(states) == count and not set(states) & set(UNDER_WAY)

        wait_until(is_at_rest, seconds)

    def remembered(self) -> list[dict[str, Any]]:
        """The history that the browser keeps."""
        text = self.run("return localStorage.getItem('classifier.history')")
        entries: list[dict[str, Any]] = json.loads(text or "[]")
        return entries

    def violations(self) -> list[str]:
        """What the content security policy forbade since this was last asked, and script errors."""
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        words = ("Content Security Policy", "TrustedHTML", "Uncaught")
        return [message for message in messages if any(word in message for word in words)]
