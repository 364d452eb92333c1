"""`classifier classify` as its users run it."""

import csv
import io
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
from fastapi import FastAPI, Response

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Outcome
from app.main import create_app
from classifier_client.calls import ATTEMPTS, CONCURRENCY
from tests.api_server import run_api
from tests.service import COMMAND, RunningService, clean_environment, wait_until
from tests.test_cli import CAT, SAMPLES, run
from tests.test_client_persistence import ACCEPTED, RESULT, SOON, play, refuse, say
from tests.test_dead_letters import ANSWER, PREDICTIONS
from tests.test_waiting import Desk


def test_classify_shows_the_best_classes_and_nothing_else(service: RunningService) -> None:
    answer = run("classify", CAT, "--url", service.url)
    assert answer.returncode == 0
    assert "cat.jpg" in answer.stdout
    assert answer.stdout.count("%") == 3
    assert answer.stderr == ""  # progress is for terminals


def test_classify_prints_a_json_line_for_each_file(service: RunningService) -> None:
    files = sorted(str(path) for path in SAMPLES.glob("*.jpg")) * 10
    answer = run("classify", *files, "--json", "--url", service.url)
    documents = [json.loads(line) for line in answer.stdout.splitlines()]
    assert sorted(document["file"] for document in documents) == sorted(files)
    assert all(len(document["result"]["predictions"]) == 5 for document in documents)
    assert answer.returncode == 0


def test_classify_reports_what_fails_and_does_the_rest(
    service: RunningService, tmp_path: Path
) -> None:
    damaged, text = tmp_path / "damaged.jpg", tmp_path / "note.jpg"
    damaged.write_bytes(Path(CAT).read_bytes()[:2000])
    text.write_text("not an image")
    answer = run("classify", str(damaged), CAT, str(text), "--url", service.url)
    assert answer.returncode == 1
    assert "cat.jpg" in answer.stdout
    failures = answer.stderr.splitlines()
    assert [line.split(": ")[1] for line in failures] == [str(damaged), str(text)]
    assert "Not a JPEG or PNG image" in failures[1]


def test_classify_puts_problems_into_json(service: RunningService, tmp_path: Path) -> None:
    text = tmp_path / "note.jpg"
    text.write_text("not an image")
    answer = run("classify", str(text), "--json", "--url", service.url)
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["problem"]["code"] == "unsupported-image"


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://127.0.0.1"])
def test_says_what_is_no_address(url: str) -> None:
    answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 2
    assert answer.stderr.startswith("classifier: no classification service at")


def test_classify_gives_up_on_a_service_that_stays_busy() -> None:
    with play(refuse(429, SOON)) as (url, _):
        answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"classifier: {CAT}: Too much work. Later."


def test_classify_says_when_something_else_answers() -> None:
    with run_api(FastAPI()) as url:
        answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 1
    assert "HTTP 404" in answer.stderr


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


def images_in(folder: Path, count: int) -> list[str]:
    """So many copies of an image; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / f"{number:04}.jpg") for number in range(count)]
    for name in names:
        shutil.copyfile(CAT, name)
    return names


def read_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- What is classified ---------------------------------------------------------------------------


def test_folders_and_globs_name_the_images_in_them(service: RunningService, tmp_path: Path) -> None:
    names = images_in(tmp_path / "a" / "deep", 2) + images_in(tmp_path / "b", 1)
    for other in ("a/note.txt", "a/.hidden.jpg", "b/data.json"):
        (tmp_path / other).write_text("not an image")
    images_in(tmp_path / ".cache", 1)
    (tmp_path / "b" / "UPPER.PNG").write_bytes(Path(CAT).read_bytes())
    for arguments in ([str(tmp_path)], [str(tmp_path / "a" / "**" / "*.jpg"), str(tmp_path / "b")]):
        answer = run("classify", *arguments, "--output", "jsonl", "--url", service.url)
        assert answer.returncode == 0, answer.stderr
        found = sorted(document["file"] for document in read_lines(answer.stdout))
        assert found == sorted([*names, str(tmp_path / "b" / "UPPER.PNG")])


def test_the_table_is_in_the_images_order(service: RunningService) -> None:
    names = ["rocket.jpg", "cat.jpg", "coffee.jpg"]
    answer = run("classify", *(str(SAMPLES / name) for name in names), "--url", service.url)
    rows = answer.stdout.splitlines()[1:]
    assert [Path(row.split()[0]).name for row in rows] == names


def test_an_image_comes_from_standard_input(service: RunningService) -> None:
    answer = subprocess.run(
        [COMMAND, "classify", "-", "--json", "--url", service.url],
        input=Path(CAT).read_bytes(),
        env=clean_environment(),
        capture_output=True,
        timeout=60,
    )
    (document,) = read_lines(answer.stdout.decode())
    assert document["file"] == "-"
    assert "cat" in document["result"]["predictions"][0]["class_name"]


def test_images_come_from_the_web(service: RunningService) -> None:
    site = FastAPI()
    site.get("/cat.jpg")(lambda: Response(Path(CAT).read_bytes()))
    with run_api(site) as address:
        urls = [f"{address}/cat.jpg", f"{address}/dog.jpg", "http://["]
        answer = run("classify", *urls, "--json", "--url", service.url)
    documents = {document["file"]: document for document in read_lines(answer.stdout)}
    assert "cat" in documents[urls[0]]["result"]["predictions"][0]["class_name"]
    assert documents[urls[1]]["problem"] == {"title": "Download failed", "detail": "HTTP 404"}
    assert documents[urls[2]]["problem"]["title"] == "Download failed"
    assert answer.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere.jpg"], "no such file or folder: nowhere.jpg"),
        (["nowhere/*.jpg"], "no file matches nowhere/*.jpg"),
        (["."], "no JPEG or PNG files in ."),
        (["-", "-"], "standard input can be read only once"),
        ([], "Invalid value: name images, or a folder to --watch"),
        (["--watch", "nowhere"], "can't watch nowhere: No such file or directory"),
        ([CAT, "--top-k", "0"], "Invalid value for '--top-k': "),
        ([CAT, "--threshold", "2"], "Invalid value for '--threshold': "),
        ([CAT, "--output", "xml"], "Invalid value for '--output': "),
        ([CAT, "--nonsense"], "No such option: --nonsense"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    arguments: list[str], complaint: str, tmp_path: Path
) -> None:
    answer = run("classify", *arguments, cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"classifier: {complaint}")
    assert (len(answer.stderr.splitlines()), answer.stdout) == (1, "")


def test_options_go_to_the_service() -> None:
    with play(say({"status": "live"}), say(ACCEPTED, 202), say(RESULT)) as (url, script):
        answer = run("classify", CAT, "--top-k", "3", "--threshold", "0.5", "--batch", "--url", url)
    assert answer.returncode == 0, answer.stderr
    _, (upload, _), _ = script.requests
    assert dict(upload.query_params) == {"top_k": "3", "threshold": "0.5", "priority": "bulk"}


# --- How it is printed ----------------------------------------------------------------------------


def test_csv_has_a_row_for_each_prediction(service: RunningService, tmp_path: Path) -> None:
    text = tmp_path / "a, note.jpg"
    text.write_text("not an image")
    answer = run("classify", CAT, str(text), "--output", "csv", "--url", service.url)
    rows = list(csv.DictReader(io.StringIO(answer.stdout)))
    ranks = [row for row in rows if row["file"] == CAT]
    assert [row["rank"] for row in ranks] == ["1", "2", "3", "4", "5"]
    assert "cat" in ranks[0]["class_name"]
    assert float(ranks[0]["confidence"]) >= float(ranks[1]["confidence"])
    (failed,) = [row for row in rows if row["file"] == str(text)]
    assert failed["error"].startswith("Not a JPEG or PNG image. ")
    assert failed["class_name"] == ""


@pytest.mark.parametrize(("output", "expected"), [("table", "no class"), ("csv", ",,,,")])
def test_an_image_may_have_no_class(output: str, expected: str) -> None:
    unsure = say(RESULT | {"predictions": []})
    with play(say({"status": "live"}), say(ACCEPTED, 202), unsure) as (url, _):
        answer = run("classify", CAT, "--output", output, "--url", url)
    assert answer.returncode == 0
    assert expected in answer.stdout


def test_progress_goes_to_the_terminal_and_answers_where_they_are_sent(
    service: RunningService, tmp_path: Path
) -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "classify", *images_in(tmp_path, 30), "--json", "--url", service.url],
        env=clean_environment(TERM="xterm", COLUMNS="120"),
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    shown = read_terminal(terminal)
    assert process.stdout is not None
    with process.stdout:
        lines = process.stdout.read().splitlines()
    assert process.wait(60) == 0
    assert len(lines) == 30
    assert "30/30" in shown and "/s" in shown
    assert "predictions" not in shown


def read_terminal(terminal: int) -> str:
    """What is shown there until nobody writes to it any more."""
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return shown.decode()
        shown += chunk


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
        f"classifier: going on with an interrupted run that sent {sent} images; --fresh does not"
    ]
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
    live, down = say({"status": "live"}), refuse(503, SOON)
    with play(live, *[down] * ATTEMPTS, live, say(ACCEPTED, 202), say(RESULT)) as (url, script):
        assert run("classify", CAT, "--url", url, **state).returncode == 1
        assert run("classify", CAT, "--url", url, **state).returncode == 0
    sent = [key for key in script.sent("idempotency-key") if key]
    assert len(sent) == ATTEMPTS + 1
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


@pytest.mark.parametrize("change", ["fresh", "changed"])
def test_an_interrupted_run_is_forgotten_where_it_does_not_count(
    change: str, tmp_path: Path
) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    (image,) = images_in(tmp_path / "photos", 1)
    live, down = say({"status": "live"}), refuse(503, SOON)
    with play(live, *[down] * ATTEMPTS, live, say(ACCEPTED, 202), say(RESULT)) as (url, script):
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
    gone = say({"title": "Job not found", "detail": "No.", "code": "job-not-found"}, 404)
    down = [refuse(503, SOON)] * ATTEMPTS
    # The second time it asks for the job, or, where it does not know that, under the key.
    first = [live, accepted, *down] if is_noted else [live, *down]
    replies = [*first, live, gone, accepted, say(RESULT)]
    with play(*replies) as (url, script):
        assert run("classify", CAT, "--url", url, **state).returncode == 1
        assert run("classify", CAT, "--url", url, **state).returncode == 0
    assert len({key for key in script.sent("idempotency-key") if key}) == 2


def test_without_a_place_to_remember_it_works_all_the_same(
    service: RunningService, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where the folder would be")
    answer = run("classify", CAT, "--url", service.url, XDG_STATE_HOME=str(tmp_path / "state"))
    assert answer.returncode == 0
    assert answer.stderr.startswith("classifier: can't remember what is sent, ")
    assert len(answer.stderr.splitlines()) == 1


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


def test_a_watch_ends_with_its_folder(service: RunningService, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    started = Started("classify", "--watch", str(folder), "--url", service.url)
    wait_until(lambda: started.complaints)
    folder.rmdir()
    assert started.end() == 0
    assert started.complaints[1:] == [f"classifier: {folder} is gone"]


# --- Completion -----------------------------------------------------------------------------------


def test_shells_complete_commands_and_options() -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        answer = run(
            _CLASSIFIER_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(len(words) - 1),
        )
        return answer.stdout.split()

    assert complete("classifier cl") == ["classify"]
    assert complete("classifier classify --wat") == ["--watch"]
    script = run(_CLASSIFIER_COMPLETE="source_bash").stdout
    assert "complete -o default" in script and "classifier" in script
