"""The `classifier` command as its users run it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI, Response

from tests.api_server import run_api
from tests.service import COMMAND, RunningService, clean_environment, find_free_port

SAMPLES = Path(__file__).parents[1] / "app" / "samples"
CAT = str(SAMPLES / "cat.jpg")
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def run(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env=clean_environment(COLUMNS="120", **environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- classify ------------------------------------------------------------------------------------


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


def test_classify_needs_files_that_exist() -> None:
    answer = run("classify", "nowhere.jpg")
    assert answer.returncode == 2
    assert "nowhere.jpg" in answer.stderr


@pytest.mark.parametrize("command", [("classify", CAT), ("status", UNKNOWN_ID)])
def test_says_where_no_service_answers(command: tuple[str, str]) -> None:
    url = f"http://127.0.0.1:{find_free_port()}"
    answer = run(*command, "--url", url)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"classifier: no classification service at {url}: ")
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["nonsense", "http://[", "ftp://127.0.0.1"])
def test_says_what_is_no_address(url: str) -> None:
    answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 2
    assert answer.stderr.startswith("classifier: no classification service at")


@pytest.mark.parametrize("status", [429, 503])
def test_classify_comes_again_while_the_service_is_busy(status: int) -> None:
    busy = FastAPI()
    refusals = iter(range(3))

    @busy.post("/classify", status_code=202)
    def accept() -> Response:
        if next(refusals, None) is not None:
            return Response("{}", status, {"Retry-After": "0.01"})
        return Response('{"job_id": "1", "status": "pending"}', 202)

    @busy.get("/status/1")
    def follow() -> dict[str, object]:
        return {"job_id": "1", "status": "completed", "progress": 100}

    @busy.get("/result/1")
    def report() -> dict[str, object]:
        return {"job_id": "1", "predictions": [{"class_name": "cat", "confidence": 0.5}]}

    with run_api(busy) as url:
        answer = run("classify", CAT, "--json", "--url", url)
    assert answer.returncode == 0, answer.stderr


def test_classify_gives_up_on_a_service_that_stays_busy() -> None:
    busy = FastAPI()

    @busy.post("/classify")
    def refuse() -> Response:
        return Response('{"title": "Too busy", "detail": "Later."}', 429, {"Retry-After": "0.01"})

    with run_api(busy) as url:
        answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 1
    assert answer.stderr.strip() == f"classifier: {CAT}: Too busy. Later."


def test_classify_says_when_something_else_answers() -> None:
    with run_api(FastAPI()) as url:
        answer = run("classify", CAT, "--url", url)
    assert answer.returncode == 1
    assert "HTTP 404" in answer.stderr


# --- status --------------------------------------------------------------------------------------


def test_status_shows_a_completed_job_with_its_predictions(service: RunningService) -> None:
    classified = json.loads(run("classify", CAT, "--json", "--url", service.url).stdout)["result"]
    job_id = classified["job_id"]
    shown = run("status", job_id, "--url", service.url)
    assert shown.returncode == 0
    assert "completed" in shown.stdout
    assert classified["predictions"][0]["class_name"] in shown.stdout
    document = json.loads(run("status", job_id, "--json", "--url", service.url).stdout)
    assert document["status"] == "completed"
    assert document["result"]["predictions"] == classified["predictions"]


def test_status_of_an_unknown_job_is_the_services_answer(service: RunningService) -> None:
    answer = run("status", UNKNOWN_ID, "--url", service.url)
    assert answer.returncode == 1
    assert answer.stderr.startswith("classifier: Job not found: No job has this id.")


# --- models, config, the command itself ----------------------------------------------------------


def test_models_shows_the_model_and_each_engine(service: RunningService) -> None:
    answer = run("models", DATA_DIR=str(service.data_dir))
    assert answer.returncode == 0, answer.stderr
    assert "efficientnet-lite0" in answer.stdout.lower()
    for engine in ("torch", "onnxruntime", "openvino"):
        assert engine in answer.stdout


def test_models_says_what_is_missing_where_no_worker_is_installed() -> None:
    code = "import sys; sys.modules['numpy'] = None; from app.cli import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code, "models"], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 2
    assert answer.stderr.strip() == (
        "classifier: numpy is missing: install the worker too, "
        "pip install '.[worker]' in the project's folder"
    )


def test_config_shows_each_value_and_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RESULT_TTL=60\n")
    url = "redis://user:secret@redis.example:6379"
    answer = run("config", "--json", cwd=tmp_path, REDIS_URL=url)
    values = json.loads(answer.stdout)
    assert values["REDIS_URL"] == {
        "value": "redis://user:***@redis.example:6379",
        "from": "environment",
    }
    assert values["RESULT_TTL"] == {"value": "60", "from": ".env"}
    assert values["MAX_FILE_SIZE"] == {"value": "10485760", "from": "default"}
    table = run("config", cwd=tmp_path, REDIS_URL=url).stdout
    assert "REDIS_URL" in table
    assert "secret" not in table


@pytest.mark.parametrize("command", ["up", "api", "worker", "models", "config"])
def test_a_bad_setting_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    answer = run(command, cwd=tmp_path, MAX_FILE_SIZE="huge")
    assert answer.returncode == 2
    assert answer.stderr.startswith("classifier: bad configuration: MAX_FILE_SIZE='huge': ")
    assert len(answer.stderr.splitlines()) == 1


def test_a_worker_is_ours_wherever_it_starts(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('somebody else\\'s app')")
    (tmp_path / "broken.pth").write_bytes(b"no model")
    answer = run("worker", cwd=tmp_path, MODEL_PATH="broken.pth")
    assert answer.returncode == 2
    assert answer.stderr.startswith("classifier: ")
    assert "broken" in answer.stderr
    assert "somebody" not in answer.stderr


def test_help_lists_the_commands_with_examples() -> None:
    text = run("--help").stdout
    for command in ("up", "api", "worker", "classify", "status", "models", "config"):
        assert f" {command} " in text
    assert "classifier classify photos/*.jpg" in run("classify", "--help").stdout
