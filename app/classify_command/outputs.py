"""How the answers are printed: a table, or a line for each as it comes."""

import csv
import io
import sys
from collections.abc import Iterable
from typing import Protocol

from app.classify_command.formats import Format
from app.classify_command.run import Answer
from app.command_line import complain
from app.core.foreign_text import escape_cell, escape_controls


class Output(Protocol):
    """Prints answers: each is shown when it comes, all of them, in order, at the end."""

    def show(self, answer: Answer) -> None: ...

    def end(self, answers: Iterable[Answer]) -> None: ...


class TableOutput:
    """A table at the end, then what failed."""

    def show(self, answer: Answer) -> None:
        """Comes at the end."""

    def end(self, answers: Iterable[Answer]) -> None:
        from rich.console import Console

        from app.tables import create_prediction_table

        answers = list(answers)
        rows = [(item.name, item.result["predictions"]) for item in answers if item.result]
        if rows:
            Console().print(create_prediction_table(rows))
        _complain_of(answers)


class LiveOutput:
    """For a run without end: the best class of each image, in a line."""

    def show(self, answer: Answer) -> None:
        if answer.result:
            best = next(iter(answer.result["predictions"]), None)
            text = f"{best['class_name']} {best['confidence']:.1%}" if best else "no class"
            print(escape_controls(f"{answer.name}: {text}"), flush=True)
        _complain_of([answer])

    def end(self, answers: Iterable[Answer]) -> None:
        """All was said."""


class JsonLinesOutput:
    """A JSON object for each image."""

    def show(self, answer: Answer) -> None:
        print(answer.to_json(), flush=True)

    def end(self, answers: Iterable[Answer]) -> None:
        _complain_of(answers)


class CsvOutput:
    """A row for each prediction; one without a class for an image that has none."""

    def __init__(self) -> None:
        _print_row("file", "rank", "class_name", "confidence", "error")

    def show(self, answer: Answer) -> None:
        predictions = answer.result["predictions"] if answer.result else []
        for rank, item in enumerate(predictions, 1):
            _print_row(answer.name, rank, item["class_name"], item["confidence"], "")
        if not predictions:
            _print_row(answer.name, "", "", "", _describe(answer))

    def end(self, answers: Iterable[Answer]) -> None:
        _complain_of(answers)


def create_output(format: Format, *, endless: bool) -> Output:
    """For a run that ends, or one that goes on until it is stopped."""
    if format is Format.JSONL:
        return JsonLinesOutput()
    if format is Format.CSV:
        return CsvOutput()
    return LiveOutput() if endless else TableOutput()


def _describe(answer: Answer) -> str:
    if answer.problem is None:
        return ""
    return f"{answer.problem['title']}. {answer.problem.get('detail', '')}"


def _complain_of(answers: Iterable[Answer]) -> None:
    for item in answers:
        if item.problem:
            complain(f"{item.name}: {_describe(item)}")


def _print_row(*values: object) -> None:
    line = io.StringIO()
    cells = [escape_cell(value) if isinstance(value, str) else value for value in values]
    csv.writer(line, lineterminator="\n").writerow(cells)
    # Looked up each time: a progress bar puts something else in its place.
    sys.stdout.write(line.getvalue())
    sys.stdout.flush()
