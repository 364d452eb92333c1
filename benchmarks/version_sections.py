"""The document's section on this checkout beside another one, as Markdown."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import NOT_MEASURED, Results, find_interval, judge, spread, table
from benchmarks.service import GROUPS, SENDER
from benchmarks.versions import BASELINE, OURS, accepting, classifying

_NAME = "versions"
_MOST_CPU = 1.02
_MOST_MEMORY_MB = 5.0
_TOO_FEW = "too few rounds"

Interval = tuple[float, float]


@dataclass(frozen=True)
class _Bar:
    """What a change may cost: words for the table, and the verdict on median and interval."""

    text: str
    judge: Callable[[float, Interval], str]


_NOT_LOWER = _Bar("interval reaches 1", lambda _, interval: judge(interval[1], 1, at_most=False))
_CPU = _Bar(f"at most {_MOST_CPU:g}", lambda median, _: judge(median, _MOST_CPU, at_most=True))
_MEMORY = _Bar(
    f"at most +{_MOST_MEMORY_MB:g} MB",
    lambda median, _: judge(median, _MOST_MEMORY_MB, at_most=True),
)


@dataclass(frozen=True)
class _Line:
    """A row of the table. ``unit``: that of the difference, empty where the ratio is shown."""

    what: str
    participant: Callable[[str], str]
    field: str
    digits: int
    unit: str = ""
    bar: _Bar | None = None

    def render(self, results: Results) -> tuple[str, ...]:
        """Both checkouts, what is between them, and the verdict."""
        ours, theirs = self.participant(OURS), self.participant(BASELINE)
        both = (
            spread(results.values(_NAME, self.field, participant=name), self.digits)
            for name in (ours, theirs)
        )
        compare = results.differences if self.unit else results.ratios
        changes = compare(_NAME, ours, theirs, self.field)
        return (self.what, *both, self._render_changes(changes), *self._render_bar(changes))

    def _render_changes(self, changes: Sequence[float]) -> str:
        if not changes:
            return NOT_MEASURED
        digits, sign = (self.digits, "+") if self.unit else (3, "")
        text = f"{statistics.median(changes):{sign}.{digits}f}"
        if interval := find_interval(changes):
            low, high = interval
            text += f" ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"
        return f"{text} {self.unit}".rstrip()

    def _render_bar(self, changes: Sequence[float]) -> tuple[str, str]:
        if self.bar is None:
            return "", ""
        interval = find_interval(changes)
        if interval is None:
            return self.bar.text, _TOO_FEW
        return self.bar.text, self.bar.judge(statistics.median(changes), interval)


_LINES = (
    _Line("images/s", classifying, "rate", 1, bar=_NOT_LOWER),
    _Line("CPU per job, ms", classifying, "cpu_ms", 2, bar=_CPU),
    *(
        _Line(f"{group}, CPU ms per job", classifying, f"groups.{group}", 2, "ms")
        for group in (*GROUPS, SENDER)
    ),
    _Line("API, memory resident, MB", classifying, "api_rss_mb", 1, "MB", _MEMORY),
    _Line("API, memory of its own, MB", classifying, "api_uss_mb", 1, "MB", _MEMORY),
    _Line("uploads accepted a second", accepting, "rate", 0, bar=_NOT_LOWER),
    _Line("API, CPU ms per upload", accepting, "api_cpu_ms", 3),
    _Line("Redis, CPU ms per upload", accepting, "redis_cpu_ms", 3),
)


def render_versions(results: Results) -> str:
    """The table, what it was taken from, and the command that does it again."""
    document = results.find(_NAME)
    if document is None:
        return NOT_MEASURED
    ours, theirs = f"`{document['machine']['commit']}`", f"`{document['baseline']}`"
    head = ("", ours, theirs, "ratio or difference", "bar", "")
    lines = table(head, (line.render(results) for line in _LINES))
    return f"{_render_origin(document, results)}\n\n{lines}"


def _render_origin(document: dict[str, Any], results: Results) -> str:
    machine, baseline = document["machine"], document["baseline"]
    rounds, seconds = document["rounds"], f"{document['seconds']:g}"
    others = spread(results.values(_NAME, "others_cores"), unit="cores")
    invalid = len({row["round"] for row in results.invalid(_NAME)})
    return (
        f"`{machine['commit']}` beside `{baseline}`, {document['taken']}: {rounds} rounds of "
        f"{seconds} s, {invalid} of them with an invalid measurement, "
        f"engine `{document['engine']}`, {machine['cores']} cores of {machine['cpu']}, "
        f"Linux {machine['kernel']}; others took {others}. Again:\n\n"
        f"```\ngit worktree add ../{baseline} {baseline}\n"
        f".venv/bin/python -m benchmarks --only versions --against ../{baseline} "
        f"--rounds {rounds} --seconds {seconds}\n```"
    )
