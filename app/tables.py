"""What the `classifier` command prints: documents as tables for people."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from app.core.config_reference import Origin, Value
from app.core.foreign_text import escape_controls
from app.inference.engines.artifacts import portion_of

if TYPE_CHECKING:
    from app.inference.engines.trial import Measurement
    from app.models.ml_models import PreparedModel

_BAR_WIDTH = 12
_RUNNERS_UP = 2


def _show(text: object, style: str = "") -> Text:
    """Text that others have written, as it may be shown; never read as markup."""
    return Text(escape_controls(str(text)), style=style)


def _create_table(*columns: str) -> Table:
    table = Table(*columns, box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].overflow = "fold"
    return table


def create_prediction_table(rows: Iterable[tuple[str, list[Mapping[str, Any]]]]) -> Table:
    """A row for each name and its predictions, the best one as a bar, the next two in words."""
    table = _create_table("file", "class", "confidence", "", "then")
    # Where it gets narrow, the runners-up give way.
    for column in table.columns[:-1]:
        column.no_wrap = True
    for name, predictions in rows:
        if not predictions:
            table.add_row(_show(name), _show("no class", style="dim"))
            continue
        best, *rest = predictions
        then = ", ".join(
            f"{item['class_name']} {item['confidence']:.1%}" for item in rest[:_RUNNERS_UP]
        )
        table.add_row(
            _show(name),
            _show(best["class_name"], style="bold"),
            Bar(1, 0, best["confidence"], width=_BAR_WIDTH, color="green"),
            f"{best['confidence']:.1%}",
            _show(then, style="dim"),
        )
    return table


def create_document_table(document: Mapping[str, Any]) -> Table:
    """A row for each field that has a value."""
    table = _create_table("", "")
    table.show_header = False
    table.columns[1].overflow = "fold"
    for key, value in document.items():
        if value is not None:
            table.add_row(_show(key, style="dim"), _show(value))
    return table


def create_dead_letters_table(letters: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each dead letter: why and when it died, what was tried, what its sender is told."""
    table = _create_table("job", "reason", "died", "tried", "error")
    # Ids are there to be copied whole; what the sender is told gives way.
    for column in table.columns[:-1]:
        column.no_wrap = True
    for letter in letters:
        table.add_row(
            _show(letter["job_id"]),
            _show(letter["reason"], style="bold"),
            _show(_shorten_time(letter["died_at"])),
            str(len(letter["attempts"])),
            _show(letter["error"]["code"], style="dim"),
        )
    return table


def create_attempts_table(attempts: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each attempt that came to nothing."""
    table = _create_table("", "started", "ended", "reason", "worker")
    for column in table.columns[:3]:
        column.no_wrap = True
    for column in table.columns[3:]:
        column.overflow = "fold"
    for item in attempts:
        table.add_row(
            str(item["attempt"]),
            _show(_shorten_time(item["started_at"])),
            _show(_shorten_time(item["ended_at"])),
            _show(item["reason"], style="bold"),
            _show(item["worker"], style="dim"),
        )
    return table


def _shorten_time(text: str) -> str:
    """To the second, as people write it: 2026-11-23 12:00:00Z."""
    return f"{text[:19].replace('T', ' ')}Z"


def _format_milliseconds(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.1f}"


def _format_batches(item: "Measurement") -> str:
    if item.batch_milliseconds is None:
        return ""
    return f"{_format_milliseconds(item.batch_milliseconds)} (of {portion_of(item.engine)})"


def create_engine_table(model: "PreparedModel") -> Table:
    """A row for each engine: how fast it is, how true to the reference, and whether it is used."""
    table = _create_table(
        "engine", "ms, one image", "in batches", "same class", "mean difference", ""
    )
    table.columns[0].no_wrap = True
    for item in model.measurements:
        chosen = item.engine is model.engine
        agreement = item.agreement
        table.add_row(
            _show(item.engine, style="bold green" if chosen else ""),
            _format_milliseconds(item.milliseconds),
            _format_batches(item),
            f"{agreement.same_class} of {agreement.images}" if agreement else "",
            f"{agreement.mean_difference:.4f}" if agreement else "",
            _show("used" if chosen else item.failure or "", style="green" if chosen else "red"),
        )
    return table


def create_settings_table(values: Iterable[Value]) -> Table:
    """A row for each variable: its value, where that came from, what it means."""
    table = _create_table("variable", "value", "from", "meaning")
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    for value in values:
        style = "" if value.origin is Origin.DEFAULT else "bold green"
        table.add_row(
            value.variable.name,
            _show(value.text, style=style),
            _show(value.origin, style=style),
            _show(value.variable.meaning, style="dim"),
        )
    return table
