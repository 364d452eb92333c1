"""The benchmarks run, and their document says what their results say."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from benchmarks.charts import Bar, render_bars
from benchmarks.figures import Results, find_interval
from benchmarks.load import INSTALL_WRK, LoadResult, find_wrk
from benchmarks.processes import Server, cpu_seconds
from benchmarks.report import DOCUMENT, PICTURES, render_document
from benchmarks.results import Row, write_results
from benchmarks.rounds import find_ratios
from benchmarks.sections import render_charts
from benchmarks.service import GROUPS, SENDER
from benchmarks.version_sections import render_versions
from benchmarks.versions import BASELINE, OURS, accepting, classifying
from benchmarks.workspace import RESULTS, ROOT

needs_wrk = pytest.mark.skipif(find_wrk() is None, reason=INSTALL_WRK)


def run_benchmarks(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=480)


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
def test_another_checkout_is_measured_with_its_own_code(tmp_path: Path) -> None:
    other, trace = tmp_path / "other", tmp_path / "trace"
    for package in ("app", "classifier_client"):
        shutil.copytree(ROOT / package, other / package)
    (other / "app" / "__init__.py").write_text(f"open({str(trace)!r}, 'a').close()\n")

    options = ("--quick", "--only", "versions", "--results", str(tmp_path))
    answer = run_benchmarks(*options, "--against", str(other))

    assert answer.returncode == 0, answer.stderr
    assert trace.exists()
    document = json.loads((tmp_path / "versions.json").read_text())
    rows = {row["participant"]: row for row in document["rows"]}
    assert list(rows) == [
        *("classifying: baseline", "classifying: this checkout"),
        *("accepting: baseline", "accepting: this checkout"),
    ]
    assert all("invalid" not in row and row["rate"] > 0 for row in rows.values()), rows
    assert rows["classifying: baseline"]["api_uss_mb"] > 0
    assert "too few rounds" in render_document(tmp_path)


@needs_wrk
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "versions"], "--only versions needs --against PATH"),
        (["--against", "/nowhere"], "--against /nowhere: there is no checkout of the service"),
    ],
)
def test_versions_need_another_checkout(options: list[str], message: str) -> None:
    answer = run_benchmarks(*options)

    assert answer.returncode == 2
    assert message in answer.stderr


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


@pytest.mark.parametrize(
    ("rounds", "interval"), [(5, None), (6, (0, 5)), (8, (0, 7)), (9, (1, 7)), (12, (2, 9))]
)
def test_the_interval_leaves_out_as_many_values_as_the_sign_test_allows(
    rounds: int, interval: tuple[int, int] | None
) -> None:
    assert find_interval([float(number) for number in reversed(range(rounds))]) == interval


def write_versions(folder: Path, rates: list[float], cpu: float, memory: float) -> None:
    """A round for each rate of this checkout; the baseline does 100 jobs a second, 10 ms each."""

    def create_row(participant: str, number: int, rate: float, cpu_ms: float, mb: float) -> Row:
        groups = {group: cpu_ms / 10 for group in (*GROUPS, SENDER)}
        spent = {"cpu_ms": cpu_ms, "groups": groups, "api_cpu_ms": 0.5, "redis_cpu_ms": 0.1}
        used = {"api_rss_mb": mb, "api_uss_mb": mb - 20, "others_cores": 0.1}
        return {"participant": participant, "round": number, "rate": rate, **spent, **used}

    rows = []
    for number, rate in enumerate(rates):
        for kind in (classifying, accepting):
            rows.append(create_row(kind(BASELINE), number, 100.0, 10.0, 90.0))
            rows.append(create_row(kind(OURS), number, rate, 10.0 * cpu, 90.0 + memory))
    about = {"rounds": len(rates), "seconds": 4, "engine": "torch", "baseline": "abc1234"}
    write_results(folder, "versions", rows, **about)


def find_line(section: str, start: str) -> str:
    return next(line for line in section.splitlines() if line.startswith(f"| {start}"))


def test_a_version_reaches_its_bars_or_not(tmp_path: Path) -> None:
    write_versions(tmp_path, [96.0, 97.0, 98.0, 99.0, 100.0, 101.0], cpu=1.03, memory=4.9)

    section = render_versions(Results(tmp_path))

    speed, cpu, memory = (
        find_line(section, start) for start in ("images/s", "CPU per job", "API, memory")
    )
    assert "| 0.985 (0.960 to 1.010) | interval reaches 1 | reached |" in speed
    assert "| 1.030 (1.030 to 1.030) | at most 1.02 | **not reached** |" in cpu
    assert "| +4.9 (+4.9 to +4.9) MB | at most +5 MB | reached |" in memory


def test_a_version_that_is_slower_in_every_round_is_not_as_fast(tmp_path: Path) -> None:
    write_versions(tmp_path, [99.0] * 6, cpu=1.0, memory=0.0)

    assert "| **not reached** |" in find_line(render_versions(Results(tmp_path)), "images/s")


def test_the_section_has_the_command_that_measures_versions_again(tmp_path: Path) -> None:
    write_versions(tmp_path, [100.0, 100.0], cpu=1.0, memory=0.0)

    section = render_versions(Results(tmp_path))

    assert "git worktree add ../abc1234 abc1234" in section
    assert "--only versions --against ../abc1234 --rounds 2 --seconds 4" in section


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
