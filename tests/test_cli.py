"""The `classifier` command as its users run it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from httpx2 import Client

from app.jobs.ledger import RedisLedger
from app.main import create_app
from tests import model_files
from tests.api_server import run_api
from tests.service import COMMAND, RunningService, clean_environment, find_free_port
from tests.test_dead_letters import TOKEN, create_settings, lose_workers, submit

SAMPLES = Path(__file__).parents[1] / "app" / "samples"
CAT = str(SAMPLES / "cat.jpg")
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


def run(
    *arguments: str, cwd: Path | None = None, typed: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        input=typed,
        env=clean_environment(COLUMNS="120", **environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", [("classify", CAT), ("status", UNKNOWN_ID), ("dead", "list")])
def test_says_where_no_service_answers(command: tuple[str, str]) -> None:
    url = f"http://127.0.0.1:{find_free_port()}"
    answer = run(*command, "--url", url, ADMIN_TOKEN=TOKEN)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"classifier: no classification service at {url}: ")
    assert answer.stderr.endswith("`classifier up` starts one, --url names another\n")
    assert len(answer.stderr.splitlines()) == 1


def test_the_service_is_where_the_environment_says() -> None:
    port = find_free_port()
    settings = run("status", UNKNOWN_ID, LISTEN_PORT=str(port))
    assert f"no classification service at http://127.0.0.1:{port}: " in settings.stderr
    url = f"http://localhost:{port}/elsewhere"
    named = run("status", UNKNOWN_ID, CLASSIFIER_URL=url, LISTEN_PORT="1")
    assert f"no classification service at {url}: " in named.stderr


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


def test_status_shows_a_cancelled_job(morgue: tuple[str, list[str]]) -> None:
    url, _ = morgue
    with Client(base_url=url) as client:
        job_id = submit(client, Path(CAT).read_bytes())
        client.post(f"/jobs/{job_id}/cancel")
    shown = run("status", job_id, "--url", url)
    assert (shown.returncode, "cancelled" in shown.stdout) == (0, True)
    document = json.loads(run("status", job_id, "--json", "--url", url).stdout)
    assert (document["status"], document["result"]) == ("cancelled", None)


def test_status_of_an_unknown_job_is_the_services_answer(service: RunningService) -> None:
    answer = run("status", UNKNOWN_ID, "--url", service.url)
    assert answer.returncode == 1
    assert answer.stderr.startswith("classifier: Job not found: No job has this id.")


# --- dead ----------------------------------------------------------------------------------------


@pytest.fixture
def morgue(clean_redis_url: str, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a service without workers, and the ids of its dead letters, oldest first."""
    settings = create_settings(clean_redis_url, data_dir=tmp_path / "data")
    with (
        run_api(create_app(settings)) as url,
        Client(base_url=url) as client,
        redis.Redis.from_url(clean_redis_url) as connection,
    ):
        ids = []
        for _ in range(3):
            ids.append(submit(client, Path(CAT).read_bytes()))
            lose_workers(RedisLedger(connection, settings))
        yield url, ids


def run_dead(*arguments: str, url: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return run("dead", *arguments, "--url", url, typed=typed, ADMIN_TOKEN=TOKEN)


def list_dead(url: str) -> list[str]:
    answer = run_dead("list", "--json", url=url)
    return [letter["job_id"] for letter in json.loads(answer.stdout)["dead_letters"]]


def test_dead_list_shows_the_latest_death_first(morgue: tuple[str, list[str]]) -> None:
    url, ids = morgue
    assert list_dead(url) == ids[::-1]
    answer = run_dead("list", "--limit", "2", url=url)
    *_, first, second, rest = answer.stdout.splitlines()
    assert first.startswith(ids[2]) and second.startswith(ids[1])
    assert "worker_lost" in first and "attempts-exhausted" in first
    assert rest == "2 of 3; --limit shows more"
    assert (answer.returncode, answer.stderr) == (0, "")


def test_dead_show_tells_what_was_tried_and_saves_the_image(
    morgue: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, ids = morgue
    image = tmp_path / "image.jpg"
    answer = run_dead("show", ids[0], "--save", str(image), url=url)
    assert (answer.returncode, answer.stderr) == (0, "")
    for words in (ids[0], "worker_lost", "worker-1/7", "worker-2/7", "attempts-exhausted"):
        assert words in answer.stdout
    assert image.read_bytes() == Path(CAT).read_bytes()
    letter = json.loads(run_dead("show", ids[0], "--json", url=url).stdout)
    assert [attempt["worker"] for attempt in letter["attempts"]] == ["worker-1/7", "worker-2/7"]


def test_dead_show_says_where_the_image_can_not_go(
    morgue: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, ids = morgue
    answer = run_dead("show", ids[0], "--save", str(tmp_path / "no" / "where"), url=url)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"classifier: can't write {tmp_path}")


def test_dead_retry_does_what_it_can_and_says_what_it_can_not(
    morgue: tuple[str, list[str]],
) -> None:
    url, ids = morgue
    answer = run_dead("retry", ids[0], UNKNOWN_ID, ids[1], url=url)
    assert (answer.returncode, answer.stdout) == (1, "retried: 2\n")
    assert answer.stderr.startswith(f"classifier: {UNKNOWN_ID}: Dead letter not found: ")
    assert json.loads(run("status", ids[0], "--json", "--url", url).stdout)["status"] == "pending"
    assert list_dead(url) == [ids[2]]
    answer = run_dead("retry", "--all", url=url)
    assert (answer.returncode, answer.stdout) == (0, "retried: 1\n")
    assert run_dead("list", url=url).stdout == "no dead letters\n"


def test_dead_purge_erases_and_asks_before_it_erases_all(morgue: tuple[str, list[str]]) -> None:
    url, ids = morgue
    answer = run_dead("purge", ids[0], ids[0], url=url)
    assert (answer.returncode, answer.stdout) == (0, "purged: 1\n")
    assert run_dead("show", ids[0], url=url).returncode == 1
    for typed in ("n\n", ""):
        answer = run_dead("purge", "--all", url=url, typed=typed)
        assert answer.returncode == 1
        assert "Erase all 2 dead letters and their images?" in answer.stdout
    assert list_dead(url) == [ids[2], ids[1]]
    answer = run_dead("purge", "--all", url=url, typed="y\n")
    assert answer.returncode == 0 and answer.stdout.endswith("purged: 2\n")
    assert run_dead("purge", "--all", "--yes", url=url).stdout == "purged: 0\n"


def test_status_of_a_dead_letter_is_that_of_a_failed_job(morgue: tuple[str, list[str]]) -> None:
    url, ids = morgue
    answer = run("status", ids[0], "--url", url)
    assert answer.returncode == 1
    assert answer.stderr.startswith("classifier: Gave up after several attempts: ")


@pytest.mark.parametrize(
    "command", [("retry",), ("purge", "--yes"), ("retry", "--all", UNKNOWN_ID)]
)
def test_dead_needs_to_be_told_which(command: tuple[str, ...]) -> None:
    answer = run("dead", *command, ADMIN_TOKEN=TOKEN)
    assert answer.returncode == 2
    assert "name dead letters by their ids, or say --all" in answer.stderr


def test_dead_says_what_to_do_without_a_token(tmp_path: Path) -> None:
    answer = run("dead", "list", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr.strip() == (
        "classifier: no admin token: set ADMIN_TOKEN to the service's, or DATA_DIR to the data "
        "folder of `classifier up`"
    )


def test_dead_finds_the_token_in_the_data_folder(
    morgue: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, ids = morgue
    (tmp_path / "admin.token").write_text(f"{TOKEN}\n", encoding="utf-8")
    answer = run("dead", "show", ids[0], "--url", url, DATA_DIR=str(tmp_path))
    assert answer.returncode == 0, answer.stderr


def test_dead_says_when_the_token_is_wrong_or_can_not_be_read(
    morgue: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, ids = morgue
    answer = run("dead", "retry", *ids, "--url", url, ADMIN_TOKEN="wrong" * 10)
    assert answer.returncode == 1
    assert answer.stderr.startswith("classifier: Not authorized: ")
    assert len(answer.stderr.splitlines()) == 1
    (tmp_path / "admin.token").mkdir()
    answer = run("dead", "list", "--url", url, DATA_DIR=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"classifier: can't use {tmp_path}/admin.token: ")


# --- models, config, the command itself ----------------------------------------------------------


def test_models_shows_the_model_and_each_engine(service: RunningService) -> None:
    answer = run("models", DATA_DIR=str(service.data_dir))
    assert answer.returncode == 0, answer.stderr
    assert "efficientnet-lite0" in answer.stdout.lower()
    for engine in ("torch", "onnxruntime", "openvino"):
        assert engine in answer.stdout


def test_tune_tries_every_engine_and_measures_again_when_told(tmp_path: Path) -> None:
    images = model_files.save_images(tmp_path / "images", 32)
    own = {"MODEL_PATH": str(model_files.save_onnx(tmp_path)), "DATA_DIR": str(tmp_path)}

    def trials() -> dict[str, int]:
        paths = tmp_path.glob("cache/*/trial-*.json")
        return {path.name: path.stat().st_mtime_ns for path in paths}

    answer = run("models", "tune", "--images", str(images), **own)
    assert answer.returncode == 0, answer.stderr
    for engine in ("torch", "onnxruntime", "openvino", "onnxruntime-int8", "openvino-int8"):
        assert f"{engine} " in answer.stdout
    assert "used" in answer.stdout
    assert f"MODEL_CALIBRATION_DIR={images}" in answer.stdout
    before = trials()
    again = run("models", "tune", MODEL_CALIBRATION_DIR=str(images), **own)
    assert again.stdout in answer.stdout
    assert trials() == before
    run("models", "tune", "--fresh", MODEL_CALIBRATION_DIR=str(images), **own)
    assert trials().keys() == before.keys()
    assert all(trials()[name] > age for name, age in before.items())


def test_tune_says_in_one_line_what_is_wrong_with_the_images(tmp_path: Path) -> None:
    answer = run("models", "tune", "--images", str(tmp_path), DATA_DIR=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"classifier: {tmp_path} holds 0 JPEG and PNG files")
    assert len(answer.stderr.splitlines()) == 1


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


@pytest.mark.parametrize("command", ["up", "api", "worker", "models", "config", "dead list"])
def test_a_bad_setting_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    answer = run(*command.split(), cwd=tmp_path, MAX_FILE_SIZE="huge")
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
    for command in ("up", "api", "worker", "classify", "status", "dead", "models", "config"):
        assert f" {command} " in text
    assert "classifier classify photos/*.jpg" in run("classify", "--help").stdout
    assert "classifier models tune --images photos/" in run("models", "tune", "--help").stdout
    for command in ("list", "show", "retry", "purge"):
        assert f"classifier dead {command} " in run("dead", command, "--help").stdout
