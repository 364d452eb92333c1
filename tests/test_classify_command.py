"""`classifier classify` as its users run it: what it takes, prints and refuses."""

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response

from tests.api_server import run_api
from tests.service import COMMAND, RunningService, clean_environment
from tests.test_cli import CAT, SAMPLES, run
from tests.test_client_persistence import ACCEPTED, LATE, RESULT, play, refuse, say


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
    assert answer.stderr == (
        f"classifier: Invalid value for '--url' (env var: 'CLASSIFIER_URL'): {url} is no address "
        "that begins with http:// or https://\n"
    )


def test_classify_gives_up_on_a_service_that_stays_busy() -> None:
    with play(refuse(429, LATE)) as (url, _):
        answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"classifier: {CAT}: Too much work. Later."


def test_classify_says_when_something_else_answers() -> None:
    with run_api(FastAPI()) as url:
        answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 1
    assert "HTTP 404" in answer.stderr


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
        (["ftp://foo/x.jpg"], "can't fetch ftp://foo/x.jpg: only http:// and https:// addresses"),
        (["nowhere/*.jpg"], "no file matches nowhere/*.jpg"),
        (["."], "no JPEG or PNG files in ."),
        (["-", "-"], "standard input can be read only once"),
        ([], "Invalid value: name images, or a folder to --watch"),
        (["--watch", "nowhere"], "can't watch nowhere: No such file or directory"),
        ([CAT, "--top-k", "0"], "Invalid value for '--top-k': "),
        ([CAT, "--threshold", "2"], "Invalid value for '--threshold': "),
        ([CAT, "--output", "xml"], "Invalid value for '--output': 'xml' is not one of"),
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


@pytest.fixture
def as_anybody() -> list[str]:
    """What a command is begun with so that permissions bind it, even if root runs the tests."""
    if os.geteuid():
        return []
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which(words[0]) is None or subprocess.run([*words, "true"]).returncode:
        pytest.skip("permissions don't bind root, and setpriv can't change that here")
    return words


def test_a_folder_that_cannot_be_read_is_told(
    service: RunningService, tmp_path: Path, as_anybody: list[str]
) -> None:
    (image,) = images_in(tmp_path / "photos", 1)
    secret = tmp_path / "photos" / "secret"
    images_in(secret, 1)
    secret.chmod(0)

    def classify(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [*as_anybody, COMMAND, "classify", str(folder), "--json", "--url", service.url]
        state = clean_environment(XDG_STATE_HOME=str(tmp_path / "state"))
        return subprocess.run(command, env=state, capture_output=True, text=True, timeout=60)

    try:
        some, none = classify(tmp_path / "photos"), classify(secret)
    finally:
        secret.chmod(0o700)
    documents = {document["file"]: document for document in read_lines(some.stdout)}
    assert set(documents) == {image, str(secret)}
    assert "result" in documents[image] and "problem" in documents[str(secret)]
    assert some.stderr == (
        f"classifier: {secret}: Unreadable file. "
        "The images in this folder are left out: Permission denied\n"
    )
    assert some.returncode == 1
    assert none.stderr == f"classifier: can't read {secret}: Permission denied\n"
    assert none.returncode == 2


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


@pytest.mark.parametrize("output", ["table", "jsonl", "csv"])
def test_a_name_that_is_not_utf_8_is_printed_escaped(
    output: str, service: RunningService, tmp_path: Path
) -> None:
    shutil.copyfile(CAT, os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    answer = run("classify", str(tmp_path), "--output", output, "--url", service.url)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "caf\\udce9.jpg" in answer.stdout
    if output == "jsonl":
        (document,) = read_lines(answer.stdout)
        assert os.path.exists(document["file"])


def test_a_name_does_not_command_the_terminal(service: RunningService, tmp_path: Path) -> None:
    image, note = tmp_path / "\x1b[31mred.jpg", tmp_path / "two\nlines\x9b.jpg"
    shutil.copyfile(CAT, image)
    note.write_text("not an image")
    answer = run("classify", str(tmp_path), "--url", service.url)
    assert "\\x1b[31mred.jpg" in answer.stdout
    assert answer.stderr.startswith(f"classifier: {tmp_path}/two\\nlines\\x9b.jpg: Not a JPEG")
    assert len(answer.stderr.splitlines()) == 1
    assert not {"\x1b", "\x9b"} & {*answer.stdout, *answer.stderr}


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


@pytest.mark.parametrize("output", ["jsonl", "csv"])
def test_a_line_for_programs_is_one_line_on_a_narrow_terminal_too(
    output: str, service: RunningService, tmp_path: Path
) -> None:
    names = images_in(tmp_path / ("long" * 20), 3)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "classify", *names, "--output", output, "--url", service.url],
        env=clean_environment(TERM="xterm", COLUMNS="40"),
        stdout=end,
        stderr=end,
    )
    os.close(end)
    shown = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", read_terminal(terminal))
    assert process.wait(60) == 0
    # The terminal adds \r; what stands before another one is overwritten.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in shown.split("\n")]
    if output == "jsonl":
        documents = [json.loads(line) for line in lines if line.startswith("{")]
        assert sorted(document["file"] for document in documents) == names
    else:
        rows = [row for row in csv.reader(lines) if row and row[0] in names]
        assert [len(row) for row in rows] == [5] * 5 * len(names)


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
