"""Secrets in settings: shown nowhere, however they are written and whatever is wrong with them."""

import json
import re
import subprocess
from pathlib import Path

import httpx2
import pytest

from app.core.config import load_settings
from app.core.config_reference import list_values, list_variables
from app.core.errors import ConfigurationError
from app.core.redaction import redact
from tests.service import COMMAND, clean_environment, find_free_port, wait_until

CANARY = "canary"
# Passwords as people paste them: nothing in them is encoded.
PASSWORDS = [
    "canary",
    "1canary/2canary",
    "1canary@2canary",
    "1canary:2canary",
    "1canary?2canary",
    "1canary#2canary",
    "1canary,2canary",
    "1canary&2canary=3canary",
    "1canary?password=2canary",
    "1canary://2canary",
    "canary canary",
    "%63anary%2Fcanary",
    "canary\x1b[31m\n",
]
URLS = {
    "REDIS_URL": [
        "redis://:{}@127.0.0.1:1/0",
        "redis://user:{}@127.0.0.1:1",
        "redis://{}@127.0.0.1:1",
        "redis://:{}",
        "redis://user:{}",
        "redis://127.0.0.1:1/0?password={}",
        "redis://127.0.0.1:1/0?db=x&password={}",
        "redis://127.0.0.1:1/0?pass%77ord={}",
        "rediss://:{}@127.0.0.1:1/0?ssl_password={}&ssl_cert_reqs=none",
        "rediss://127.0.0.1:1?ssl_password={}",
        "redis://:{}@127.0.0.1:1/0?nothing=like-it",
        "unix://user:{}@/run/redis.sock?db=1",
        "unix:///run/redis.sock?password={}",
        "sentinel://:{}@127.0.0.1:1,127.0.0.1:2/main?sentinel_password={}",
        "sentinel://127.0.0.1:1/main?sentinel_password={}",
        "sentinel://:{}@127.0.0.1/main/2",
        "http://user:{}@127.0.0.1",
        "user:{}@127.0.0.1:6379",
        "redis:/user:{}@127.0.0.1",
    ],
    "CORS_ORIGINS": [
        "https://user:{}@app.example",
        "https://{}@app.example",
        "https://a.example,https://user:{}@app.example:8000",
        "https://a.example:8000, user:{}@app.example",
    ],
    "WEBHOOK_SERVICE_URL": [
        "https://user:{}@images.example/path",
        "https://{}@images.example",
        "ftp://user:{}@images.example",
        "https://images.example/?token={}",
    ],
    "WEBHOOK_ALLOWED_NETWORKS": ["10.0.0.0/8,https://user:{}@10.0.0.1"],
    "TRUSTED_PROXIES": ["https://user:{}@10.0.0.1"],
}
CASES = [
    (name, url.replace("{}", password))
    for name, urls in URLS.items()
    for url in urls
    for password in PASSWORDS
    # Before a colon is a user's name and behind an @ a host, which are shown.
    if not ("//{}@" in url and ":" in password or url.endswith(":{}") and "@" in password)
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing set, and a working directory without a .env."""
    for variable in list_variables():
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_no_url_shows_its_password_in_config_or_in_a_complaint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, url in CASES:
        monkeypatch.setenv(name, url)
        try:
            shown = next(
                value.text for value in list_values(load_settings()) if value.variable.name == name
            )
        except ConfigurationError as error:
            shown = str(error)
            assert shown.startswith(f"{name}="), shown
        monkeypatch.delenv(name)
        assert not re.search("canary|%63anary|\\x1b|\n", shown), (name, url, shown)


@pytest.mark.parametrize("token", ["a", CANARY, "x" * 31])
def test_a_short_admin_token_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", token)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == (
        "ADMIN_TOKEN='***': must have at least 32 characters: `openssl rand -hex 32` makes one"
    )


def test_a_long_admin_token_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", "x" * 32 + "\n")
    assert load_settings().admin.token is not None


def test_a_short_admin_token_ends_the_start(tmp_path: Path) -> None:
    answer = run("up", ADMIN_TOKEN=CANARY, DATA_DIR=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith("classifier: bad configuration: ADMIN_TOKEN='***': must have")
    assert len(answer.stderr.splitlines()) == 1


def test_a_short_token_in_the_data_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text(CANARY)
    answer = run("dead", "list", DATA_DIR=str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"classifier: {tmp_path}/admin.token holds fewer than 32")
    assert CANARY not in answer.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example:8000,https://b.example", "https://a.example:8000,https://b.example"),
        ("redis://[::1]:6379/0?db=1", "redis://[::1]:6379/0?db=1"),
        ("/srv/models/a@b.onnx", "/srv/models/a@b.onnx"),
        ("redis://:p/w@host/0", "redis://:***@host/0"),
        ("https://host/?access_token=x&a=b", "https://host/?access_token=***&a=b"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("rediss://user:s:e@cret@host:1/2", "rediss://user:***@host:1/2"),
        ("unix:///run/redis.sock?password=secret&db=1", "unix:///run/redis.sock?password=***&db=1"),
        ("sentinel://:secret@a:1,b/main", "sentinel://:***@a:1,b/main"),
        (
            "sentinel://a/main?sentinel_password=x&db=1",
            "sentinel://a/main?sentinel_password=***&db=1",
        ),
    ],
)
def test_what_is_no_secret_is_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=clean_environment(COLUMNS="200", **environment),
        capture_output=True,
        text=True,
        timeout=60,
    )


# Valid, so that what is started goes on to connect, and fails.
REACHING = [
    "redis://:canary%2Fcanary@127.0.0.1:1/0",
    "rediss://:canary@127.0.0.1:1/0?ssl_password=canary&ssl_cert_reqs=none",
    "unix://user:canary@/no/such.sock?password=canary",
    "sentinel://:canary@127.0.0.1:1/main?sentinel_password=canary",
]


@pytest.mark.parametrize("url", REACHING)
def test_no_command_shows_a_password(tmp_path: Path, url: str) -> None:
    environment = {"REDIS_URL": url, "ADMIN_TOKEN": CANARY * 6, "DATA_DIR": str(tmp_path)}
    table, document = run("config", **environment), run("config", "--json", **environment)
    assert table.returncode == document.returncode == 0
    values = json.loads(document.stdout)
    assert "***" in values["REDIS_URL"]["value"]
    up = run("up", "--port", str(find_free_port()), **environment)
    assert up.returncode == 2 and "does not answer" in up.stderr
    for answer in (table, document, up):
        assert CANARY not in answer.stdout + answer.stderr


@pytest.mark.parametrize("url", [REACHING[1], REACHING[3]])
def test_no_process_logs_a_password(tmp_path: Path, url: str) -> None:
    port = find_free_port()
    environment = {"REDIS_URL": url, "ADMIN_TOKEN": CANARY * 6, "DATA_DIR": str(tmp_path)}
    environment |= {"LOG_LEVEL": "DEBUG"}
    commands = [["api", "--port", str(port)], ["worker"], ["webhooks"]]
    files = [tmp_path / command[0] for command in commands]
    processes = []
    try:
        for command, file in zip(commands, files, strict=True):
            with file.open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [COMMAND, *command],
                        env=clean_environment(**environment),
                        stdout=output,
                        stderr=output,
                    )
                )
        for word, file in zip(("Redis is not reachable", "Redis", "Redis"), files, strict=True):
            wait_until(lambda file=file, word=word: word in file.read_text(), 60)  # type: ignore
        for path in ("/health", "/status/00000000-0000-4000-8000-000000000000", "/webhooks"):
            answer = httpx2.get(f"http://127.0.0.1:{port}{path}")
            assert answer.status_code == 503
            assert CANARY not in answer.text
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    for file in files:
        assert CANARY not in file.read_text(), file.name


def test_an_address_shows_no_password_when_nothing_answers() -> None:
    url = f"http://user:{CANARY}@127.0.0.1:{find_free_port()}"
    for arguments in (("status", "00000000-0000-4000-8000-000000000000"), ("dead", "list")):
        answer = run(*arguments, CLASSIFIER_URL=url, ADMIN_TOKEN=CANARY * 6)
        assert "no classification service at http://***@127.0.0.1:" in answer.stderr
        assert CANARY not in answer.stderr
    for url in (f"ftp://user:{CANARY}@host", f"user:{CANARY}@host", f"user:{CANARY}"):
        answer = run("dead", "list", "--url", url)
        assert answer.returncode == 2 and CANARY not in answer.stderr
