"""The compose file says what it must; with CONTAINER_TESTS=1, what it starts classifies."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml  # type: ignore[import-untyped]

from app.core.config_reference import list_variables
from classifier_client import Classifier
from tests.service import find_free_port, wait_until

ROOT = Path(__file__).parents[1]
COMPOSE_FILE = ROOT / "docker" / "docker-compose.yml"
IMAGE = ROOT / "app" / "samples" / "cat.jpg"
BUILD_SECONDS = 1800  # a worker's dependencies are large, the network may be slow
START_SECONDS = 300  # the first worker tries every engine


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    declared: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))["services"]
    return declared


def test_the_file_in_the_root_adds_nothing_to_the_one_in_docker() -> None:
    outer = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    inner = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    assert outer == {"name": inner["name"], "include": ["docker/docker-compose.yml"]}


def test_there_are_an_api_two_workers_a_sender_and_a_redis(services: dict[str, Any]) -> None:
    assert {name: service.get("scale", 1) for name, service in services.items()} == {
        "api": 1,
        "worker": 2,
        "webhooks": 1,
        "redis": 1,
    }


def test_only_the_api_is_published_and_only_on_loopback(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["${LISTEN_HOST:-127.0.0.1}:${LISTEN_PORT:-8000}:8000"]}


def test_redis_keeps_every_job(services: dict[str, Any]) -> None:
    redis = services["redis"]
    assert redis["image"].startswith("redis:7")
    assert "--appendonly yes" in redis["command"]
    assert "--maxmemory-policy noeviction" in redis["command"]
    assert "--maxmemory ${REDIS_MAX_MEMORY:-1gb}" in redis["command"]
    assert redis["volumes"] == ["redis-data:/data"]


@pytest.mark.parametrize("name", ["api", "worker", "webhooks"])
def test_what_needs_redis_waits_for_it_and_shares_uploads_through_it(
    services: dict[str, Any], name: str
) -> None:
    service = services[name]
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert service["environment"]["REDIS_URL"] == "redis://redis:6379"
    assert service["environment"]["PAYLOAD_STORE"] == "redis"


@pytest.mark.parametrize("name", ["api", "worker", "webhooks", "redis"])
def test_what_dies_comes_back(services: dict[str, Any], name: str) -> None:
    assert services[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["api", "worker", "webhooks"])
def test_every_variable_is_a_setting(services: dict[str, Any], name: str) -> None:
    known = {variable.name for variable in list_variables()}
    assert services[name]["environment"].keys() <= known


@pytest.mark.parametrize("name", ["api", "worker", "webhooks"])
def test_the_image_has_a_file_to_be_built_from(services: dict[str, Any], name: str) -> None:
    assert (ROOT / services[name]["build"]["dockerfile"]).is_file()


def test_workers_see_the_folder_of_models_and_cannot_write_it(services: dict[str, Any]) -> None:
    mount = next(item for item in services["worker"]["volumes"] if isinstance(item, dict))
    assert (mount["source"], mount["target"]) == ("${PWD}/models", "/app/models")
    assert mount["read_only"]


@dataclass(frozen=True)
class Composition:
    """What the compose file started, under a project name and a port of the test's own."""

    command: tuple[str, ...]
    port: int

    def run(self, *words: str, seconds: float = 120) -> str:
        """Run a compose command; its standard output."""
        environment = os.environ | {"PWD": str(ROOT), "LISTEN_PORT": str(self.port)}
        process = subprocess.run(
            [*self.command, "-p", f"classifier-test-{self.port}", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=seconds,
            check=True,
        )
        return process.stdout

    @property
    def url(self) -> str:
        """Where its API listens."""
        return f"http://127.0.0.1:{self.port}"

    def count_workers(self) -> int:
        """The workers that /health counts; 0 while nothing answers."""
        try:
            answer = httpx2.get(f"{self.url}/health", trust_env=False)
        except httpx2.TransportError:
            return 0
        return int(answer.json()["workers_available"])


def find_compose() -> tuple[str, ...] | None:
    """The compose command of an engine that runs."""
    candidates = (
        (("podman", "info"), ("podman-compose",)),
        (("docker", "info"), ("docker", "compose")),
        (("docker", "info"), ("docker-compose",)),
    )
    for engine, compose in candidates:
        if all(map(shutil.which, (engine[0], compose[0]))) and all(
            subprocess.run(command, capture_output=True).returncode == 0
            for command in (engine, (*compose, "version"))
        ):
            return compose
    return None


@pytest.fixture(scope="module")
def composition() -> Iterator[Composition]:
    if os.environ.get("CONTAINER_TESTS") != "1":
        pytest.skip("builds images for minutes: set CONTAINER_TESTS=1")
    command = find_compose()
    if command is None:
        pytest.skip("needs podman and podman-compose, or a Docker engine and Compose 2.20 or newer")
    composition = Composition(command, find_free_port())
    try:
        composition.run("up", "--build", "-d", seconds=BUILD_SECONDS)
        yield composition
    finally:
        composition.run("down", "-v")


def test_two_workers_come_up_and_an_image_is_classified(composition: Composition) -> None:
    wait_until(lambda: composition.count_workers() == 2, START_SECONDS)
    with Classifier(composition.url) as client:
        assert "cat" in client.classify(IMAGE).predictions[0].class_name
