"""`classifier classify` over time: interrupted runs that go on, folders that are watched."""

import json
import os
import pty
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Outcome
from app.main import create_app
from classifier_client.calls import ATTEMPTS, CONCURRENCY
from tests.api_server import run_api
from tests.service import COMMAND, RunningService, clean_environment, wait_until
from tests.test_classify_command import images_in, read_lines, read_terminal
from tests.test_cli import CAT, SAMPLES, run
from tests.test_client_persistence import (
    ACCEPTED,
    JOB_ID,
    LATE,
    RESULT,
    SOON,
    Reply,
    play,
    refuse,
    say,
)
from tests.test_dead_letters import ANSWER, PREDICTIONS
from tests.test_waiting import Desk


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    with run_api(create_app(settings)) as url:
        yield Desk(url, settings)


class Started:
    """A command that runs beside the test; its output is read as it comes."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [COMMAND, *arguments],
            env=clean_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.complaints)),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, file: Any, lines: list[str]) -> None:
        with file:
            for line in file:
                lines.append(line.rstrip("\n"))

    def end(self, number: signal.Signals | None = None) -> int:
        """Its exit code, after a signal or when it is done."""
        if number:
            self.process.send_signal(number)
        code = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        return code


# --- Interrupted runs -----------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_sends_nothing_twice(desk: Desk, tmp_path: Path) -> None:
    names = images_in(tmp_path / "photos", 80)
    command = ("classify", str(tmp_path / "photos"), "--json", "--url", desk.url)
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}

    first = Started(*command, **state)
    wait_until(lambda: work(desk) or len(first.lines) >= 16)
    # Each accepted job is waited for only when it was noted.
    wait_until(lambda: count_awaited(desk) == CONCURRENCY)
    first.end(signal.SIGKILL)
    sent = len(find_jobs(desk))
    assert len(first.lines) + CONCURRENCY <= sent < len(names)

    second = Started(*command, **state)
    wait_until(lambda: work(desk) or second.process.poll() is not None)
    assert second.end() == 0
    assert sorted(json.loads(line)["file"] for line in second.lines) == names
    assert len(find_jobs(desk)) == len(names)
    assert second.complaints == [
        f"classifier: already sent by an earlier run: {sent} of 80 images; --fresh sends all again"
    ]
    assert not list((tmp_path / "state").rglob("*.jsonl"))


def test_a_killed_watch_goes_on_with_what_was_named(desk: Desk, tmp_path: Path) -> None:
    names = images_in(tmp_path / "photos", 3)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    command = ("classify", *names, "--watch", str(inbox), "--json", "--url", desk.url)
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}

    first = Started(*command, **state)
    wait_until(lambda: work(desk) or len(first.lines) == len(names))
    (appeared,) = images_in(inbox, 1)
    wait_until(lambda: work(desk) or len(first.lines) == len(names) + 1)
    first.end(signal.SIGKILL)

    second = Started(*command, **state)
    wait_until(lambda: len(second.lines) == len(names))
    shutil.copyfile(CAT, appeared)
    wait_until(lambda: work(desk) or len(second.lines) == len(names) + 1)
    assert second.end(signal.SIGINT) == 0
    assert len(find_jobs(desk)) == len(names) + 2
    assert not list((tmp_path / "state").rglob("*.jsonl"))


def work(desk: Desk) -> None:
    """Do what there is to do."""
    claims = desk.ledger.claim("w", ANSWER).claims
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])


def find_jobs(desk: Desk) -> list[bytes]:
    """The keys of all jobs that the service has."""
    return list(desk.redis.keys(keys.job("*")))


def count_awaited(desk: Desk) -> int:
    """How many jobs have not begun and are waited for."""
    return sum(
        desk.redis.hget(key, "state") == b"pending" and desk.redis.hexists(key, "watchers")
        for key in find_jobs(desk)
    )


def test_ctrl_c_says_that_nothing_is_lost(desk: Desk, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    command = ("classify", CAT, "--json", "--url", desk.url)
    first = Started(*command, **state)
    wait_until(lambda: count_awaited(desk) == 1)
    assert first.end(signal.SIGINT) == 130
    assert first.complaints == ["classifier: interrupted; the same command goes on from here"]
    work(desk)
    answer = run(*command, **state)
    assert json.loads(answer.stdout)["result"]["predictions"] == PREDICTIONS
    assert len(find_jobs(desk)) == 1


def test_what_may_have_been_sent_is_sent_under_the_same_key(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    live, down = say({"status": "live"}), refuse(503, LATE)
    with play(live, down, live, say(ACCEPTED, 202), say(RESULT)) as (url, script):
        assert run("classify", CAT, "--url", url, **state).returncode == 1
        assert run("classify", CAT, "--url", url, **state).returncode == 0
    sent = [key for key in script.sent("idempotency-key") if key]
    assert len(sent) == 2
    assert len(set(sent)) == 1


def test_a_run_that_ended_is_not_gone_on_with(service: RunningService, tmp_path: Path) -> None:
    names = images_in(tmp_path / "photos", 2)
    note = tmp_path / "photos" / "note.jpg"
    note.write_text("not an image")
    command = ("classify", str(tmp_path / "photos"), "--json", "--url", service.url)
    ids = set()
    for _ in range(2):
        answer = run(*command, XDG_STATE_HOME=str(tmp_path / "state"))
        assert answer.stderr.splitlines() == [
            f"classifier: {note}: Not a JPEG or PNG image. The file is neither JPEG nor PNG, "
            "whatever its name says. Convert it first."
        ]
        results = [item["result"] for item in read_lines(answer.stdout) if "result" in item]
        ids |= {result["job_id"] for result in results}
    assert len(ids) == 2 * len(names)


def test_an_image_that_was_never_sent_is_none_of_an_interrupted_run(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    live, missing = say({"status": "live"}), say({}, 404)
    # The script is both the service and the site that the image is not at.
    with play(live, missing, live, missing) as (url, _):
        again = [run("classify", f"{url}/cat.jpg", "--url", url, **state) for _ in range(2)]
    for answer in again:
        assert answer.stderr == f"classifier: {url}/cat.jpg: Download failed. HTTP 404\n"


def test_a_run_says_how_many_of_its_images_were_sent_before(tmp_path: Path) -> None:
    """Whether that was interrupted or ended with a failure."""
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    first, second = images_in(tmp_path / "photos", 2)
    live, accepted, down = say({"status": "live"}), say(ACCEPTED, 202), refuse(503, LATE)
    replies = [live, accepted, down, live, accepted, say(RESULT), live, say(RESULT)]
    with play(*replies) as (url, _):
        assert run("classify", first, "--url", url, **state).returncode == 1
        other = run("classify", second, "--url", url, **state)
        again = run("classify", first, "--url", url, **state)
    assert other.stderr == ""
    assert again.stderr == (
        "classifier: already sent by an earlier run: 1 of 1 images; --fresh sends all again\n"
    )


@pytest.mark.parametrize("change", ["fresh", "changed"])
def test_an_interrupted_run_is_forgotten_where_it_does_not_count(
    change: str, tmp_path: Path
) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    (image,) = images_in(tmp_path / "photos", 1)
    live, down = say({"status": "live"}), refuse(503, LATE)
    with play(live, down, live, say(ACCEPTED, 202), say(RESULT)) as (url, script):
        run("classify", image, "--url", url, **state)
        if change == "changed":
            shutil.copyfile(SAMPLES / "coffee.jpg", image)
        again = ("--fresh",) if change == "fresh" else ()
        assert run("classify", image, "--url", url, *again, **state).returncode == 0
    assert len({key for key in script.sent("idempotency-key") if key}) == 2


@pytest.mark.parametrize("is_noted", [True, False])
def test_an_answer_that_the_service_has_forgotten_is_asked_for_anew(
    is_noted: bool, tmp_path: Path
) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    live, accepted = say({"status": "live"}), say(ACCEPTED, 202)
    not_found = say({"title": "Job not found", "detail": "No.", "code": "job-not-found"}, 404)
    words = {"title": "Job expired", "detail": "No.", "code": "job-expired", "job_id": JOB_ID}
    gone = not_found if is_noted else say(words, 410)
    down = refuse(503, LATE)
    # The second time it asks for the job, or, where it does not know that, under the key.
    first = [live, accepted, down] if is_noted else [live, down]
    replies = [*first, live, gone, accepted, say(RESULT)]
    with play(*replies) as (url, script):
        assert run("classify", CAT, "--url", url, **state).returncode == 1
        assert run("classify", CAT, "--url", url, **state).returncode == 0
    assert len({key for key in script.sent("idempotency-key") if key}) == 2


def test_a_second_run_at_the_same_time_says_that_it_is_not_remembered(
    desk: Desk, tmp_path: Path
) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    command = ("classify", CAT, "--json", "--url", desk.url)
    first = Started(*command, **state)
    wait_until(lambda: count_awaited(desk) == 1)
    second = Started(*command, **state)
    wait_until(lambda: count_awaited(desk) == 2)
    assert second.end(signal.SIGINT) == 130
    assert second.complaints == [
        "classifier: this run can't be resumed, should it be interrupted: "
        "another run with these options and folders is under way",
        "classifier: interrupted",
    ]
    work(desk)
    assert (first.end(), first.complaints) == (0, [])


def test_an_address_whose_image_has_changed_is_a_new_job(desk: Desk, tmp_path: Path) -> None:
    # A website of its own: what it has before the run is interrupted, and since.
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    first, second = (SAMPLES / name for name in ("cat.jpg", "coffee.jpg"))
    with play(Reply(200, first.read_bytes()), Reply(200, second.read_bytes())) as (site, _):
        command = ("classify", f"{site}/image.jpg", "--json", "--url", desk.url)
        begun = Started(*command, **state)
        wait_until(lambda: count_awaited(desk) == 1)
        begun.end(signal.SIGKILL)
        forget_jobs(tmp_path / "state")
        again = Started(*command, **state)
        wait_until(lambda: work(desk) or again.process.poll() is not None)
    assert (again.end(), again.complaints) == (0, [])
    assert json.loads(again.lines[0])["result"]["predictions"] == PREDICTIONS
    assert len(find_jobs(desk)) == 2


def forget_jobs(state: Path) -> None:
    """As if runs had been killed before they heard that their images were accepted."""
    (journal,) = state.rglob("*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if json.loads(line)[2] is None))


def test_without_a_place_to_remember_it_works_all_the_same(
    service: RunningService, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where the folder would be")
    answer = run("classify", CAT, "--url", service.url, XDG_STATE_HOME=str(tmp_path / "state"))
    assert answer.returncode == 0
    assert answer.stderr.startswith("classifier: this run can't be resumed, ")
    assert len(answer.stderr.splitlines()) == 1


def test_a_run_stays_with_a_busy_service_until_it_takes_the_images(tmp_path: Path) -> None:
    busy, lost = [refuse(429, SOON)] * (ATTEMPTS + 1), [refuse(503, SOON)] * (ATTEMPTS + 1)
    with play(say({}), *busy, say(ACCEPTED, 202), *lost, say(RESULT)) as (url, script):
        answer = run("classify", CAT, "--url", url, XDG_STATE_HOME=str(tmp_path / "state"))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert len(script.requests) == 1 + len(busy) + 1 + len(lost) + 1


def test_a_run_that_waited_in_vain_soon_gives_the_next_image_up(tmp_path: Path) -> None:
    images_in(tmp_path / "photos", 2)
    folder = tmp_path / "watched"
    folder.mkdir()
    with play(say({}), refuse(429, LATE), refuse(429, SOON)) as (url, script):
        started = Started("classify", "--watch", str(folder), "--url", url)
        wait_until(lambda: started.complaints)
        for count, image in enumerate(sorted((tmp_path / "photos").iterdir()), 1):
            image.rename(folder / image.name)
            wait_until(lambda: len(started.complaints) == 1 + count)
        assert started.end(signal.SIGINT) == 1
    assert all("Too much work" in line for line in started.complaints[1:-1])
    assert len(script.requests) == 1 + 1 + ATTEMPTS


# --- A watched folder -----------------------------------------------------------------------------


def test_images_are_classified_as_they_appear_until_it_is_stopped(
    service: RunningService, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    images_in(folder, 1)
    (moved,) = images_in(elsewhere, 1)
    image = Path(CAT).read_bytes()
    started = Started("classify", "--watch", str(folder), "--json", "--url", service.url)
    wait_until(lambda: started.complaints)
    assert started.complaints == [f"classifier: watching {folder}; Ctrl-C ends that"]

    def answered(count: int) -> dict[str, Any]:
        wait_until(lambda: len(started.lines) == count)
        document: dict[str, Any] = json.loads(started.lines[-1])
        return document

    with (folder / "written.jpg").open("wb") as file:
        file.write(image[:1000])
        file.flush()
        (folder / "ignored.txt").write_bytes(image)
        os.rename(moved, folder / "moved.jpg")
        assert answered(1)["file"] == str(folder / "moved.jpg")
        file.write(image[1000:])
    assert answered(2)["file"] == str(folder / "written.jpg")
    assert "cat" in json.loads(started.lines[-1])["result"]["predictions"][0]["class_name"]
    assert started.end(signal.SIGINT) == 0
    assert len(started.lines) == 2


def test_what_was_sent_is_answered_before_a_watch_ends(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (named,) = images_in(folder, 1)
    started = Started("classify", named, "--watch", str(folder), "--url", desk.url)
    wait_until(lambda: count_awaited(desk) == 1)
    started.process.send_signal(signal.SIGINT)
    wait_until(lambda: work(desk) or started.process.poll() is not None)
    assert started.end() == 0
    assert started.lines == [f"{named}: cat 90.0%"]


def test_ctrl_c_ends_a_watch_before_all_that_was_named_is_sent(desk: Desk, tmp_path: Path) -> None:
    names = images_in(tmp_path / "photos", 3 * CONCURRENCY)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    command = ("classify", *names, "--watch", str(inbox), "--json", "--url", desk.url)
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    ending = "classifier: ending when what was sent is answered; Ctrl-C again ends at once"

    first = Started(*command, **state)
    wait_until(lambda: count_awaited(desk) == CONCURRENCY)
    first.process.send_signal(signal.SIGINT)
    wait_until(lambda: ending in first.complaints)
    wait_until(lambda: work(desk) or first.process.poll() is not None)
    assert first.end() == 130
    assert first.complaints[-1] == "classifier: interrupted; the same command goes on from here"
    assert len(first.lines) == len(find_jobs(desk)) < len(names)

    second = Started(*command, **state)
    wait_until(lambda: work(desk) or len(second.lines) == len(names))
    assert second.end(signal.SIGINT) == 0
    assert second.complaints[-1] == ending
    assert len(find_jobs(desk)) == len(names)


def test_progress_knows_how_many_images_were_named_beside_a_watch(
    desk: Desk, tmp_path: Path
) -> None:
    names = images_in(tmp_path, 3)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "classify", *names, "--watch", str(tmp_path), "--json", "--url", desk.url],
        env=clean_environment(TERM="xterm", XDG_STATE_HOME=str(tmp_path / "state")),
        stdout=subprocess.DEVNULL,
        stderr=end,
    )
    os.close(end)
    wait_until(lambda: count_awaited(desk) == len(names))
    process.send_signal(signal.SIGINT)
    wait_until(lambda: work(desk) or process.poll() is not None)
    assert "0/3" in read_terminal(terminal)
    assert process.returncode == 0


def test_a_watch_ends_with_its_folder(service: RunningService, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    started = Started("classify", "--watch", str(folder), "--url", service.url)
    wait_until(lambda: started.complaints)
    folder.rmdir()
    assert started.end() == 0
    assert started.complaints[1:] == [f"classifier: {folder} is gone"]


def test_only_watching_needs_what_other_systems_have_not(
    service: RunningService, tmp_path: Path
) -> None:
    (tmp_path / "asyncinotify.py").write_text("raise ModuleNotFoundError(__name__)")
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    assert run("classify", CAT, "--url", service.url, **paths).returncode == 0
    answer = run("classify", "--watch", str(tmp_path), "--url", service.url, **paths)
    assert answer.returncode == 2
    assert answer.stderr == "classifier: --watch needs asyncinotify, which runs on Linux only\n"
