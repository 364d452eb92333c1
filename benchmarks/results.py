"""Files of results: what every figure in the document comes from."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

Row = dict[str, Any]


def write_results(folder: Path, name: str, rows: Sequence[Row], **about: Any) -> Path:
    """Write ``name``.json: the rows, what they were taken on, when, and with which options."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "measurement": name,
        "taken": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": describe_machine(),
        **about,
        "rows": [_rounded(row) for row in rows],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def find_results(folder: Path, name: str) -> dict[str, Any] | None:
    """What a run wrote, or ``None`` if none did."""
    try:
        document: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return document


def find_value(row: Row, field: str) -> Any:
    """A field of a row; ``a.b`` is the field ``b`` of the field ``a``."""
    value: Any = row
    for key in field.split("."):
        value = value[key]
    return value


def _rounded(row: Row) -> Row:
    """Floats with six significant digits: more is noise."""
    return {name: _round(value) for name, value in row.items()}


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return _rounded(value)
    return value
