"""The ways to install agree, and the command that is installed works."""

import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.service import COMMAND

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_requirements_are_the_runtime_the_worker_and_redis(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    expected = {*project["dependencies"], *extras["worker"], *extras["redis"]}
    assert requirements("requirements.txt") == expected


def test_development_requirements_add_the_dev_extra(project: dict[str, Any]) -> None:
    expected = {"-r requirements.txt", *project["optional-dependencies"]["dev"]}
    assert requirements("requirements-dev.txt") == expected


def test_the_command_is_installed(project: dict[str, Any]) -> None:
    (entry,) = entry_points(group="console_scripts", name="classifier")
    assert entry.value == project["scripts"]["classifier"]
    answer = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout == f"classifier {project['version']}\n"


def test_container_images_get_every_package_that_is_installed() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = pyproject["tool"]["setuptools"]["packages"]["find"]["include"]
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert packages
    assert {f"!{name.removesuffix('*')}" for name in packages} <= set(sent)


@pytest.mark.parametrize("target", ["run", "test", "check", "docs", "clean"])
def test_make_alone_lists_what_it_can_do(target: str) -> None:
    answer = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"make {target} " in answer.stdout
