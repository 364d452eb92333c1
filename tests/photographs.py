"""The hundred labelled photographs that lie beside a checkout on some machines, none in the
repository. Tests that want breadth use them and are skipped elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "images"

needs_photographs = pytest.mark.skipif(
    not (FOLDER / "reference.json").exists(), reason=f"no labelled photographs in {FOLDER}"
)


def read_reference() -> list[dict[str, Any]]:
    """For each photograph: file, index, label, and the reference implementation's top five."""
    images: list[dict[str, Any]] = json.loads((FOLDER / "reference.json").read_text())["images"]
    return images
