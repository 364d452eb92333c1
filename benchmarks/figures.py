"""Figures out of files of results: medians with ranges, ratios, and whether a bar is reached."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Row, find_results, find_value
from benchmarks.rounds import find_pairs, find_ratios

NOT_MEASURED = "not measured"
_TAIL = 0.025  # of each side of an interval


class Results:
    """The files of one folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._documents: dict[str, dict[str, Any] | None] = {}

    def find(self, name: str) -> dict[str, Any] | None:
        """A file's document, or ``None`` if nothing was measured."""
        if name not in self._documents:
            self._documents[name] = find_results(self._folder, name)
        return self._documents[name]

    def rows(self, name: str, **wanted: Any) -> list[Row]:
        """Valid rows whose fields are as wanted."""
        document = self.find(name) or {"rows": []}
        return [
            row
            for row in document["rows"]
            if "invalid" not in row and all(row.get(key) == wanted[key] for key in wanted)
        ]

    def values(self, name: str, field: str, **wanted: Any) -> list[float]:
        """One field of those rows, as :func:`find_value` reads it."""
        return [find_value(row, field) for row in self.rows(name, **wanted)]

    def ratios(self, name: str, ours: str, theirs: str, field: str = "rate") -> list[float]:
        """Ours by theirs, per round."""
        return find_ratios(self.rows(name), ours, theirs, field)

    def differences(self, name: str, ours: str, theirs: str, field: str) -> list[float]:
        """Ours less theirs, per round."""
        pairs = find_pairs(self.rows(name), ours, theirs, field)
        return [own - other for own, other in pairs]

    def invalid(self, name: str) -> list[Row]:
        """Rows that do not count."""
        document = self.find(name) or {"rows": []}
        return [row for row in document["rows"] if "invalid" in row]


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """``median (least–most) unit``, or that it was not measured."""
    if not values:
        return NOT_MEASURED
    text = f"{statistics.median(values):,.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
    return f"{text} {unit}".rstrip()


@dataclass(frozen=True)
class Bar:
    """Something that the service must show: the median of ``values`` against a limit."""

    number: int
    what: str
    limit: float
    values: Sequence[float]
    unit: str = "×"
    at_most: bool = False
    digits: int = 2

    def render(self) -> str:
        """A row of the table of bars."""
        sign = "at most" if self.at_most else "at least"
        bound = f"{sign} {self.limit:g} {self.unit}".strip()
        measured = spread(self.values, self.digits)
        return f"| {self.number} | {self.what} | {bound} | {measured} | {self._verdict()} |"

    def _verdict(self) -> str:
        if not self.values:
            return NOT_MEASURED
        return judge(statistics.median(self.values), self.limit, self.at_most)


def judge(measured: float, limit: float, at_most: bool) -> str:
    """The verdict on a bar."""
    reached = measured <= limit if at_most else measured >= limit
    return "reached" if reached else "**not reached**"


def find_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval that holds the true median with at least 95 %, ``None`` for too few values.

    The sign test's: no assumption about how values are distributed, and no chance in the result.
    Each value is below the true median as likely as above it, so the binomial distribution says
    how many of the least and the most may be left out (of twelve values, two at each end). Fewer
    than six values have no such interval.
    """
    count, tail, rank = len(values), 0.0, 0
    while (tail := tail + math.comb(count, rank) / 2**count) <= _TAIL:
        rank += 1
    ordered = sorted(values)
    return (ordered[rank - 1], ordered[-rank]) if rank else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
