"""Settings: the specification's names, where values come from, what a bad one does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import Settings, load_settings, variable_name
from app.core.config_reference import (
    EXAMPLE_PATH,
    REFERENCE_PATH,
    Origin,
    find_origin,
    list_values,
    list_variables,
    render_example,
    render_reference,
)
from app.core.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
SPECIFIED = {
    "REDIS_URL": "redis://localhost:6379",
    "MODEL_PATH": "./models/classifier.pth",
    "MAX_FILE_SIZE": "10485760",
    "RESULT_TTL": "3600",
    "LOG_LEVEL": "INFO",
}
# Of those that have no default and don't take just any text.
VALUES = {
    "ADMIN_TOKEN": "a token of at least 32 characters",
    "CORS_ORIGINS": "*",
    "HTTP_CONNECTIONS": "500",
    "REDIS_MAX_MEMORY": "1000000000",
    "TRUSTED_PROXIES": "10.0.0.5, 192.168.1.0/24, unix",
    "WEBHOOK_ALLOWED_NETWORKS": "10.1.0.0/16",
    "WEBHOOK_SERVICE_URL": "https://images.example.com",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing set, and a working directory without a .env."""
    for variable in list_variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "default"), SPECIFIED.items())
def test_the_specified_variables_keep_their_names_and_defaults(name: str, default: str) -> None:
    defaults = {variable.name: variable.default for variable in list_variables()}
    assert defaults[name] == default


@pytest.mark.parametrize("variable", list_variables(), ids=lambda variable: variable.name)
def test_every_variable_is_read_and_explained(
    variable: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = next(item for item in list_values(Settings()) if item.variable == variable)
    value = chosen.text or VALUES.get(chosen.variable.name, "somewhere")
    monkeypatch.setenv(chosen.variable.name, value)
    again = next(item for item in list_values(load_settings()) if item.variable == variable)
    is_secret = chosen.variable.name == "ADMIN_TOKEN"
    assert again.text == ("*" * 10 if is_secret else value)
    assert again.origin is Origin.ENVIRONMENT
    assert chosen.variable.meaning.endswith(".")


@pytest.mark.parametrize(
    ("text", "memory_bytes"),
    [("67108864", 1 << 26), ("512mb", 1 << 29), ("1GB", 1 << 30), ("1g", 10**9)],
)
def test_memory_is_read_as_redis_reads_it(
    text: str, memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_MAX_MEMORY", text)
    assert load_settings().redis.max_memory == memory_bytes


def test_a_path_of_fields_makes_the_variable() -> None:
    assert variable_name("limits", "file_size") == "MAX_FILE_SIZE"
    assert variable_name("queue", "lease_seconds") == "QUEUE_LEASE_SECONDS"


def test_a_file_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("RESULT_TTL=60\nLISTEN_PORT=9001\n")
    monkeypatch.setenv("LISTEN_PORT", "9002")
    settings = load_settings()
    assert (settings.result.ttl, find_origin("RESULT_TTL")) == (60, Origin.FILE)
    assert (settings.listen.port, find_origin("LISTEN_PORT")) == (9002, Origin.ENVIRONMENT)
    assert (settings.log.level, find_origin("LOG_LEVEL")) == ("INFO", Origin.DEFAULT)


def test_an_empty_value_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULT_TTL", "")
    assert load_settings().result.ttl == 3600
    assert find_origin("RESULT_TTL") is Origin.DEFAULT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_FILE_SIZE", "-1"),
        ("RESULT_TTL", "soon"),
        ("LOG_LEVEL", "LOUD"),
        ("REDIS_URL", "localhost"),
        ("ENGINE", "steam"),
        ("LISTEN_PORT", "70000"),
        ("ALLOWED_HOSTS", "https://images.example.org"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("REDIS_URL", "redis://localhost:abc"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "sentinel://localhost"),
        ("REDIS_URL", "sentinel://localhost/main/2"),
        ("REDIS_URL", "sentinel:///main"),
        ("REDIS_URL", "sentinel://one,,two/main"),
        ("REDIS_URL", "sentinel://localhost:abc/main"),
        ("REDIS_URL", "sentinel://localhost:70000/main"),
        ("REDIS_URL", "sentinel://localhost/main?db=x"),
        ("REDIS_URL", "sentinel://localhost/main?timeout=1"),
    ],
)
def test_a_bad_value_is_told_in_one_line_that_names_the_variable(name: str, value: str) -> None:
    command = [sys.executable, "-c", "from app.core.config import get_settings; get_settings()"]
    process = subprocess.run(command, env={name: value}, capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 2
    # What stands in a port's place or in a query may be a password.
    shown = "***" if re.search("[?]|:abc", value) else value
    assert process.stderr.startswith(f"classifier: bad configuration: {name}='{shown}': ")
    assert len(process.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["LOG", "QUEUE", "MAX", "REDIS", "MODEL"])
def test_a_variable_called_like_a_group_is_somebody_elses(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = load_settings()
    monkeypatch.setenv(name, "x")
    assert load_settings() == before


def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULT_TTL", "0")
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError, match="RESULT_TTL.*LOG_LEVEL|LOG_LEVEL.*RESULT_TTL"):
        load_settings()


def test_the_documentation_is_up_to_date() -> None:
    assert (ROOT / REFERENCE_PATH).read_text(encoding="utf-8") == render_reference(), "make docs"
    assert (ROOT / EXAMPLE_PATH).read_text(encoding="utf-8") == render_example(), "make docs"


def test_the_example_file_changes_nothing_as_it_is_and_is_valid_without_its_marks(
    tmp_path: Path,
) -> None:
    plain = Settings()
    (tmp_path / ".env").write_text(render_example(), encoding="utf-8")
    assert load_settings() == plain
    names = tuple(f"#{variable.name}=" for variable in list_variables())
    lines = render_example().splitlines()
    lines = [line.removeprefix("#") if line.startswith(names) else line for line in lines]
    (tmp_path / ".env").write_text("\n".join(lines), encoding="utf-8")
    assert load_settings().model_dump() == plain.model_dump()


def test_an_image_may_not_be_decoded_for_longer_than_a_batch_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORKER_SOFT_LIMIT_SECONDS", "60")
    monkeypatch.setenv("WORKER_DECODE_SECONDS", "40")
    assert load_settings().worker.longest_decode_seconds == 40
    monkeypatch.setenv("WORKER_DECODE_SECONDS", "41")
    with pytest.raises(ConfigurationError, match="two thirds of WORKER_SOFT_LIMIT_SECONDS"):
        load_settings()
