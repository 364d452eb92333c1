"""What a person sees of the web page, on the real service."""

import json
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.browser.page import CAT, COFFEE, ROCKET, SAMPLES, Page
from tests.service import RunningService, wait_until


def make_copies(folder: Path, count: int) -> list[Path]:
    sources = (CAT, COFFEE, ROCKET)
    names = [folder / f"image {index + 1}.jpg" for index in range(count)]
    return [Path(shutil.copy(sources[i % 3], name)) for i, name in enumerate(names)]


# --- Images and their answers ---------------------------------------------------------------------


def test_an_image_is_classified_and_its_predictions_shown(
    page: Page, service: RunningService
) -> None:
    page.open(service.url)
    assert "listed here" in page.find("#nothing").text
    page.choose(CAT)
    page.wait_until_at_rest(1)
    (entry,) = page.remembered()
    result = httpx2.get(f"{service.url}/result/{entry['id']}").json()
    expected = [
        (prediction["class_name"], f"{prediction['confidence'] * 100:.1f} %")
        for prediction in result["predictions"]
    ]
    assert page.predictions_of("cat.jpg") == expected
    assert "Done in " in page.text_of("cat.jpg")
    assert page.run("return document.querySelector('.card img').naturalWidth") > 0
    assert not page.find("#nothing").is_displayed()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_images_can_be_dropped_and_pasted(page: Page, service: RunningService, way: str) -> None:
    page.open(service.url)
    getattr(page, way)(CAT, COFFEE)
    page.wait_until_at_rest(2)
    assert page.states() == ["completed", "completed"]
    assert page.predictions_of("coffee.jpg")[0][0] == "espresso"


def test_a_folder_that_is_dropped_is_called_one(
    page: Page, service: RunningService, tmp_path: Path
) -> None:
    folder = tmp_path / "photos.jpg"
    folder.mkdir()
    page.open(service.url)
    page.drag(CAT, folder)
    page.wait_for_states("completed", "refused")
    text = page.text_of("photos.jpg")
    assert "This is a folder. Drop the files in it." in text
    assert "Retry" not in text and "curl" not in text


def test_twenty_images_at_once_are_all_classified(
    page: Page, service: RunningService, tmp_path: Path
) -> None:
    page.open(service.url)
    page.choose(*make_copies(tmp_path, 20))
    page.wait_until_at_rest(20)
    assert page.states() == ["completed"] * 20
    assert page.predictions_of("image 2.jpg")[0][0] == "espresso"
    assert len({entry["id"] for entry in page.remembered()}) == 20


def test_what_is_no_image_is_refused_in_words(page: Page, service: RunningService) -> None:
    page.open(service.url)
    page.choose(SAMPLES / "README.md", CAT)
    page.wait_for_states("refused", "completed")
    assert "neither JPEG nor PNG" in page.text_of("README.md")


def test_a_damaged_image_fails_in_words(
    page: Page, service: RunningService, damaged_image: Path
) -> None:
    page.open(service.url)
    page.choose(damaged_image)
    page.wait_for_states("failed")
    assert "ends too early" in page.text_of("half.jpg")


def test_a_file_that_is_too_large_is_refused_in_words(
    page: Page, service: RunningService, tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(CAT.read_bytes() + bytes(11_000_000))
    page.open(service.url)
    page.choose(large)
    page.wait_for_states("refused")
    assert "10,485,760 bytes" in page.text_of("large.jpg")


def test_names_are_text_whatever_they_look_like(
    page: Page, service: RunningService, tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>&amp;.jpg"
    shutil.copy(CAT, tmp_path / name)
    page.open(service.url)
    page.choose(tmp_path / name)
    page.wait_for_states("completed")
    assert page.find("h3").text == name


# --- What the browser remembers -------------------------------------------------------------------


def test_the_history_is_there_after_a_reload_and_gone_once_cleared(
    page: Page, service: RunningService
) -> None:
    page.open(service.url)
    page.choose(CAT, COFFEE)
    page.wait_until_at_rest(2)
    wait_until(lambda: all(entry.get("thumbnail") for entry in page.remembered()))
    ids = [entry["id"] for entry in page.remembered()]
    before = page.predictions_of("cat.jpg")
    page.browser.refresh()
    page.wait_for_states("completed", "completed")
    assert page.predictions_of("cat.jpg") == before
    assert page.run("return document.querySelector('.card img').naturalWidth") > 0

    page.find("#clear").click()
    page.find("#question button[value=yes]").click()
    wait_until(lambda: page.states() == [])
    assert page.remembered() == []
    for job_id in ids:
        wait_until(lambda: httpx2.get(f"{service.url}/result/{job_id}").status_code == 410)
    page.browser.refresh()
    assert page.find("#nothing").is_displayed()


def test_the_history_is_bounded(page: Page, service: RunningService) -> None:
    page.open(service.url)
    entries = [
        {"key": f"k{n}", "id": f"i{n}", "name": f"{n}.jpg", "size": 1, "at": n, "index": 0}
        | {"state": "completed", "seconds": 0.1, "predictions": []}
        for n in range(200)
    ]
    page.run("localStorage.setItem('classifier.history', arguments[0])", json.dumps(entries))
    page.browser.refresh()
    page.choose(CAT)
    wait_until(lambda: len(page.remembered()) == 60)
    names = [entry["name"] for entry in page.remembered()]
    assert names[:2] == ["cat.jpg", "199.jpg"]


@pytest.mark.parametrize("text", ["{", "7", '[{"key": 1}]', "null"])
def test_a_history_that_makes_no_sense_is_ignored(
    page: Page, service: RunningService, text: str
) -> None:
    page.open(service.url)
    page.run("localStorage.setItem('classifier.history', arguments[0])", text)
    page.browser.refresh()
    page.choose(CAT)
    page.wait_for_states("completed")


def test_one_image_can_be_removed_and_is_erased(page: Page, service: RunningService) -> None:
    page.open(service.url)
    page.choose(CAT, COFFEE)
    page.wait_until_at_rest(2)
    job_id = next(entry["id"] for entry in page.remembered() if entry["name"] == "cat.jpg")
    page.press("remove", "cat.jpg")
    assert page.states() == ["completed"]
    assert [entry["name"] for entry in page.remembered()] == ["coffee.jpg"]
    wait_until(lambda: httpx2.get(f"{service.url}/status/{job_id}").status_code == 410)


# --- The rest of the page -------------------------------------------------------------------------


@pytest.mark.parametrize("is_open", [True, False], ids=["clipboard", "no clipboard"])
def test_the_curl_command_classifies_the_same_file(
    page: Page, service: RunningService, tmp_path: Path, is_open: bool
) -> None:
    """Without HTTPS, from another machine, a browser has no clipboard to write to."""
    name = 'o\'my "cat"; a,b.jpg'
    shutil.copy(CAT, tmp_path / name)
    page.open(service.url)
    page.command(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    page.choose(tmp_path / name)
    page.wait_for_states("completed")
    if not is_open:
        page.run("navigator.clipboard.writeText = () => Promise.reject(new Error())")
    page.press("copy", name)
    assert page.browser.switch_to.active_element.accessible_name == f"Copy as curl: {name}"
    wait_until(lambda: "Copied" in str(page.find("#news").get_attribute("textContent")))
    script = "navigator.clipboard.readText().then(arguments[0])"
    command = page.browser.execute_async_script(script)
    answer = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=60)
    first = json.loads(answer.stdout)["predictions"][0]["class_name"]
    assert first == page.predictions_of(name)[0][0]


def test_the_curl_command_of_a_hostile_name_does_nothing_to_a_terminal(
    page: Page, service: RunningService, tmp_path: Path
) -> None:
    """A paste ends where a terminal finds ESC[201~, and what comes then is typed."""
    page.open(service.url)
    for name in (
        "\x1b[201~\ntouch pwned\n'.jpg",
        "\x03\x9b31m\u202egnp.\u20661\u2028.jpg",
        "tab\tand \\033 as 'text'.jpg",
        '\x7f0 1;type=text" $(touch pwned) `touch pwned`.jpg',
    ):
        script = (
            "import('./web/card.js').then((card) => arguments[1](card.curlCommand(arguments[0])))"
        )
        command = page.browser.execute_async_script(script, {"name": name})
        assert command.isprintable(), ascii(command)
        shutil.copy(CAT, tmp_path / name)
        answer = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=60
        )
        assert "cat" in json.loads(answer.stdout)["predictions"][0]["class_name"], answer.stderr
    assert not (tmp_path / "pwned").exists()


def test_the_page_says_how_the_service_is(page: Page, service: RunningService) -> None:
    page.open(service.url)
    wait_until(lambda: "1 worker on " in page.find("#health").text)
    assert page.find("#health").text.startswith("Ready · 0 waiting · ")
    assert page.find("#health").get_attribute("data-status") == "healthy"


def test_a_page_that_nobody_sees_sends_but_neither_asks_nor_follows(
    page: Page, service: RunningService
) -> None:
    hide = "Object.defineProperty(document, 'hidden', { get: () => window.isHidden ?? true })"
    script = page.command("Page.addScriptToEvaluateOnNewDocument", source=hide)
    try:
        page.open(service.url)
        page.choose(CAT)
        page.wait_for_states("pending")
        (entry,) = page.remembered()
        end = f"{service.url}/result/{entry['id']}"
        assert httpx2.get(end, headers={"Prefer": "wait=30"}).status_code == 200
        requests = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        assert f"{service.url}/health" not in page.run(requests)
        assert page.states() == ["pending"]
        page.run("window.isHidden = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_states("completed")
        wait_until(lambda: f"{service.url}/health" in page.run(requests))
    finally:
        page.command("Page.removeScriptToEvaluateOnNewDocument", **script)


def test_colours_follow_the_system_until_they_are_switched(
    page: Page, service: RunningService
) -> None:
    def background() -> str:
        colour: str = page.run("return getComputedStyle(document.documentElement).backgroundColor")
        return colour

    page.open(service.url)
    light = background()
    page.open(service.url, is_dark=True)
    dark = background()
    assert light != dark
    switch = page.find("#theme")
    assert switch.get_attribute("aria-pressed") == "true"
    switch.click()
    assert (background(), switch.get_attribute("aria-pressed")) == (light, "false")
    page.browser.refresh()
    assert background() == light
    page.find("#theme").click()
    assert background() == dark


def test_everything_is_reached_with_the_keyboard(page: Page, service: RunningService) -> None:
    page.open(service.url)
    page.choose(CAT)
    page.wait_for_states("completed")
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(6):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        element = page.browser.switch_to.active_element
        reached.append(element.accessible_name)
    assert reached[0] == "API"
    assert reached[1] == "Dark colours"
    assert reached[2].startswith("Choose images")
    assert reached[3:] == ["Clear history", "Copy as curl: cat.jpg", "Remove: cat.jpg"]
    ActionChains(page.browser).send_keys(Keys.ENTER).perform()
    wait_until(lambda: page.states() == [])
    assert page.browser.switch_to.active_element.get_attribute("id") == "files"
