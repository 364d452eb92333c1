"""The benchmarks run, and their document says what their results say."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from benchmarks.charts import Bar, render_bars
from benchmarks.figures import Results
from benchmarks.load import INSTALL_WRK, LoadResult, find_wrk
from benchmarks.processes import Server, cpu_seconds
from benchmarks.report import DOCUMENT, PICTURES, render_document
from benchmarks.rounds import find_ratios
from benchmarks.sections import render_charts
from benchmarks.workspace import RESULTS, ROOT

needs_wrk = pytest.mark.skipif(find_wrk() is None, reason=INSTALL_WRK)


def run_benchmarks(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


@needs_wrk
def test_a_quick_run_writes_valid_results(tmp_path: Path) -> None:
    answer = run_benchmarks("--quick", "--only", "overhead", "--results", str(tmp_path))

    assert answer.returncode == 0, answer.stderr
    document = json.loads((tmp_path / "overhead.json").read_text())
    rows = {row["participant"]: row for row in document["rows"]}
    assert list(rows) == ["service", "bare loop", "bare loop, Pillow"]
    assert all("invalid" not in row and row["rate"] > 0 for row in rows.values()), rows
    assert set(rows["service"]["groups"]) >= {"API", "Redis", "main process", "children"}
    assert document["machine"]["cores"] > 0
    assert "this service" in render_document(tmp_path)


@needs_wrk
@pytest.mark.parametrize("option", ["--only", "--peers"])
def test_an_unknown_name_is_refused_with_those_that_exist(option: str) -> None:
    answer = run_benchmarks(option, "nonsense")

    assert answer.returncode == 2
    assert "nonsense is none of" in answer.stderr


@needs_wrk
def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    answer = run_benchmarks("--images", str(tmp_path))

    assert answer.returncode == 2
    assert "there is no JPEG or PNG" in answer.stderr


def test_the_document_is_what_the_committed_results_make_it() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render_document()


def test_so_are_its_pictures() -> None:
    rendered = render_charts(Results(RESULTS))

    assert {path.stem for path in PICTURES.glob("*.svg")} == set(rendered)
    for name, picture in rendered.items():
        assert (PICTURES / f"{name}.svg").read_text(encoding="utf-8") == picture


def test_what_was_not_measured_is_said_to_be_so(tmp_path: Path) -> None:
    document = render_document(tmp_path)

    assert "not measured" in document
    assert "reached |" not in document


def test_ratios_are_of_valid_measurements_of_the_same_round() -> None:
    rows = [
        {"participant": "ours", "round": 0, "rate": 30.0},
        {"participant": "theirs", "round": 0, "rate": 10.0},
        {"participant": "ours", "round": 1, "rate": 40.0},
        {"participant": "theirs", "round": 1, "rate": 10.0, "invalid": "2 wrong"},
    ]

    assert find_ratios(rows, "ours", "theirs") == [3.0]


def test_a_load_with_one_wrong_answer_is_no_measurement() -> None:
    right = LoadResult(100, 1.0, 100.0, 0, 0, 0.1, 5.0, 9.0, "")
    wrong = replace(right, wrong=1, example="429 too many jobs")

    assert "invalid" not in right.to_row()
    assert wrong.to_row()["invalid"] == "1 wrong, 0 failed: 429 too many jobs"


def test_the_cpu_time_of_children_that_ended_counts(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); input()"
    with Server("parent", [sys.executable, "-c", parent], {}, tmp_path, PIPE) as server:
        server.wait_for(lambda: cpu_seconds(server.tree()[:1]) >= 0.5, seconds=60)


def test_every_value_stands_in_the_picture_as_text() -> None:
    picture = render_bars("Speed & more", "/s", [Bar("this service", 123.4, 120, 130, own=True)])

    assert "123 /s" in picture
    assert "Speed &amp; more" in picture
