"""The examples of docs/client.md do what they say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from classifier_client import Classifier
from tests.service import RunningService, clean_environment
from tests.test_cli import SAMPLES, run

PAGE = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXPECTED = [
    r"(.*cat: [\d.]+%\n)(.*: [\d.]+%\n){4}",
    r"photos/coffee.jpg espresso\nphotos/rocket.jpg .+\n",
    r"(pending 0\n)?(processing \d+\n)*completed 100\nPrediction\(class_name='.*cat', .*\)\n",
    r".*cat\ncat.jpg [\da-f-]{36}\nphotos/rocket.jpg [\da-f-]{36}\n",
    r"coffee.jpg espresso\nrocket.jpg .+\n",
    r"a-1 2\n(\d+ %\n)*100 %\na-[12] completed\n",
    r"unsupported-image 415 None The file is neither JPEG nor PNG.*\n",
]


@pytest.mark.parametrize(("example", "expected"), list(zip(EXAMPLES, EXPECTED, strict=True)))
def test_examples_print_what_they_should(
    example: str, expected: str, service: RunningService, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", tmp_path)
    for name in ("coffee.jpg", "rocket.jpg"):
        shutil.copy(SAMPLES / name, tmp_path / "photos")
    code = example.replace("http://127.0.0.1:8000", service.url)
    assert code != example
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(SAMPLES.parents[1])),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert re.fullmatch(expected, answer.stdout), answer.stdout


def test_the_page_names_each_method_and_option() -> None:
    for option in re.findall(r"--[a-z-]{3,}", run("classify", "--help").stdout):
        assert option in PAGE or option in ("--help", "--url", "--json")
    methods = {name for name in vars(Classifier) if not name.startswith("_")} - {"close"}
    assert "classify_batch" in methods
    assert {name for name in methods if f"`{name}`" not in PAGE} == set()
