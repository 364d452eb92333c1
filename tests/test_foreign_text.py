"""What others have named does nothing to the terminals and spreadsheets of those who look at it."""

import csv
import io
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.core.foreign_text import escape_cell, escape_controls, render_json
from app.embedded.terminal import Terminal
from tests.api_client import SAMPLE
from tests.service import COMMAND, clean_environment

JOB_ID = "5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11"
# A title, a colour, C1's CSI, the end of a bracketed paste, a turned direction, a line break.
HOSTILE = "\x1b]0;pwn\x07\x1b[31m\x9b31m\x1b[201~\u202egnp.\u2066\u2028\r\n\x08\x7f[red]x"
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TIME = "2026-11-23T12:00:00.000Z"
PREDICTIONS = [{"class_name": HOSTILE, "confidence": share} for share in (0.6, 0.3, 0.1)]
PROBLEM = {"code": HOSTILE, "title": HOSTILE, "detail": HOSTILE, "status": 422}
LETTER = {
    "job_id": HOSTILE,
    "reason": HOSTILE,
    "died_at": HOSTILE,
    "created_at": HOSTILE,
    "upload_bytes": 1,
    "error": {"code": HOSTILE, "detail": HOSTILE},
    "attempts": [
        {
            "attempt": 1,
            "worker": HOSTILE,
            "started_at": HOSTILE,
            "ended_at": HOSTILE,
            "reason": HOSTILE,
        }
    ],
}


class HostileService(BaseHTTPRequestHandler):
    """Answers what it is asked in the right form, and with hostile text wherever there is text."""

    is_failing = False

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/health/live":
            self._answer(200, {"status": "live"})
        elif self.is_failing:
            self._answer(422, PROBLEM)
        elif path.startswith("/status/"):
            status = {"job_id": JOB_ID, "status": "completed", "progress": 100, "stage": HOSTILE}
            self._answer(200, status | {"updated_at": TIME})
        elif path.startswith("/result/"):
            times: dict[str, Any] = {"created_at": TIME, "completed_at": TIME}
            times |= {"processing_time": 0.1, "queue_time": 0.1}
            model = {"name": HOSTILE, "version": HOSTILE, "engine": HOSTILE}
            self._answer(
                200, {"job_id": JOB_ID, "predictions": PREDICTIONS, "model": model} | times
            )
        elif path == "/admin/dead-letters":
            self._answer(200, {"total": 1, "dead_letters": [LETTER]})
        else:
            self._answer(200, LETTER)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.is_failing:
            self._answer(422, PROBLEM)
        else:
            self._answer(202, {"job_id": JOB_ID, "status": "pending"})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class FailingService(HostileService):
    """Refuses everything, in hostile words."""

    is_failing = True


@pytest.fixture(scope="module", params=[HostileService, FailingService])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), request.param)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=clean_environment(COLUMNS="200", ADMIN_TOKEN="x" * 40, **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "command",
    [
        ("classify", "IMAGE"),
        ("classify", "IMAGE", "--output", "csv"),
        ("classify", "IMAGE", "--output", "jsonl"),
        ("status", JOB_ID),
        ("status", JOB_ID, "--json"),
        ("dead", "list"),
        ("dead", "list", "--json"),
        ("dead", "show", JOB_ID),
        ("dead", "show", JOB_ID, "--json"),
    ],
    ids=" ".join,
)
def test_no_command_passes_on_what_a_terminal_obeys(
    url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    image = tmp_path / f"{HOSTILE.replace('/', '')[:60]}.jpg"
    image.write_bytes(SAMPLE.read_bytes())
    answer = run(*(str(image) if word == "IMAGE" else word for word in command), "--url", url)
    shown = answer.stdout + answer.stderr
    assert not HARMFUL.search(shown), shown
    assert re.search(r"\\(x1b|u001b)\]0;pwn", shown), shown
    assert "Traceback" not in shown


def test_config_shows_a_setting_as_it_may_be_shown(tmp_path: Path) -> None:
    for arguments in ((), ("--json",)):
        answer = run("config", *arguments, DATA_DIR="/tmp/\x1b[31m\x9b\u202e[red]")
        assert answer.returncode == 0
        assert not HARMFUL.search(answer.stdout), answer.stdout
        assert "31m" in answer.stdout and "[red]" in answer.stdout


def test_what_runs_together_shows_what_its_parts_quote() -> None:
    stream = io.BytesIO()
    terminal = Terminal(stream, colours=False)
    terminal.hold("redis")
    terminal.write("redis", HOSTILE.encode() + b"\xff")
    terminal.release("redis", show=True)
    terminal.write("worker", b"a model called \x1b[31mred\tof two words\r")
    terminal.say(f"cat.jpg is {HOSTILE}")
    first, second, third, rest = stream.getvalue().decode().split("\n")
    assert first.startswith(" redis | \\x1b]0;pwn\\x07") and first.endswith("\\xff")
    assert second == "worker | a model called \\x1b[31mred\tof two words"
    assert third == f"    up | cat.jpg is {escape_controls(HOSTILE)}"
    assert rest == ""


def test_json_says_the_same_after_it() -> None:
    document = {"names": [HOSTILE, "Žluťoučký kůň 👩‍🔬", "\ud800"]}
    text = render_json(document)
    assert json.loads(text) == document
    assert not HARMFUL.search(text) and "Žluťoučký" in text
    assert text.encode()


def test_letters_of_all_languages_stay_as_they_are() -> None:
    for text in ("Žluťoučký kůň", "חתול", "قطة", "猫", "👩‍🔬", "นก"):
        assert escape_controls(text) == text


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1+cmd", "@sum", "=cmd|' /C calc'!A0", "＝1+1", "＋1", "－1", "＠a"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert escape_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["cat", "-", "", "a=b", "'=1", "photos/-1.jpg"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert escape_cell(text) == text


def test_a_row_is_a_line_and_no_formula(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FailingService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "=1+1.jpg").write_bytes(b"no image")
    (tmp_path / "two\nlines\t.jpg").write_bytes(b"no image")
    address = f"http://127.0.0.1:{server.server_address[1]}"
    answer = subprocess.run(
        [COMMAND, "classify", "=1+1.jpg", "two\nlines\t.jpg", "--output", "csv", "--url", address],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    server.shutdown()
    server.server_close()
    rows = list(csv.DictReader(io.StringIO(answer.stdout)))
    assert {row["file"] for row in rows} == {"'=1+1.jpg", "two\\nlines\\t.jpg"}
    assert len(answer.stdout.splitlines()) == 3
