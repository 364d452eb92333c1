"""What there is to set: the reference page, ``.env.example``, and where each value came from.

``python -m app.core.config_reference`` writes the two files into the working directory.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dotenv import dotenv_values
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.core.config import Settings, variable_name
from app.core.redaction import redact

REFERENCE_PATH = Path("docs/configuration.md")
EXAMPLE_PATH = Path(".env.example")
COMPUTED_DEFAULT = "number of cores"  # the one default that differs from machine to machine
NO_DEFAULT = "none"

_WORDS = {COMPUTED_DEFAULT, NO_DEFAULT}  # these describe a default, they are no values


class Origin(StrEnum):
    """Where a value came from."""

    ENVIRONMENT = "environment"
    FILE = ".env"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting as a user meets it."""

    name: str
    section: str
    path: tuple[str, ...]
    default: str
    meaning: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Value:
    """A variable's value in this process, fit to be shown: passwords read ``***``."""

    variable: Variable
    text: str
    origin: Origin


def list_variables() -> list[Variable]:
    """Every variable, in the order of its declaration; those outside any group first."""
    return sorted(_variables(), key=lambda variable: len(variable.path))


def list_values(settings: Settings) -> list[Value]:
    """Every variable with its value in ``settings`` and where that came from."""
    values = []
    for variable in list_variables():
        value: Any = settings
        for part in variable.path:
            value = getattr(value, part)
        text = "" if value is None else redact(str(value))
        values.append(Value(variable, text, find_origin(variable.name)))
    return values


def find_origin(name: str) -> Origin:
    """Where the variable ``name`` is set. Like the settings, takes an empty value for none."""
    if any(value for key, value in os.environ.items() if key.upper() == name):
        return Origin.ENVIRONMENT
    if any(value for key, value in dotenv_values(".env").items() if key.upper() == name):
        return Origin.FILE
    return Origin.DEFAULT


def _variables() -> Iterator[Variable]:
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            section = (group.__doc__ or "").partition("\n")[0].rstrip(".")
            for leaf_name, leaf in group.model_fields.items():
                yield _variable(section, leaf, name, leaf_name)
        else:
            yield _variable("General", field, name)


def _variable(section: str, field: FieldInfo, *path: str) -> Variable:
    default = COMPUTED_DEFAULT if field.default_factory else str(field.default)
    if field.default is None:
        default = NO_DEFAULT
    elif isinstance(field.default, Path):
        default = f"./{field.default}"
    return Variable(
        name=variable_name(*path),
        section=section,
        path=path,
        default=default,
        meaning=field.description or "",
        allowed=_allowed(field),
    )


def _allowed(field: FieldInfo) -> str:
    choices: list[str] = []
    if get_origin(field.annotation) is Literal:
        choices = [str(choice) for choice in get_args(field.annotation)]
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        choices = list(field.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds: dict[str, Any] = {}
    for constraint in field.metadata:
        for kind in ("ge", "gt", "le"):
            bounds[kind] = getattr(constraint, kind, bounds.get(kind))
    low, above, high = bounds.get("ge"), bounds.get("gt"), bounds.get("le")
    if high is None:
        return ""
    return f"{low} to {high}" if low is not None else f"above {above}, to {high}"


def render_reference() -> str:
    """The text of ``docs/configuration.md``."""
    lines = [
        "# Configuration",
        "",
        "Every setting is an environment variable. The environment wins over a `.env` file in the "
        "working directory, which wins over the default; an empty value counts as none. A bad "
        "value ends the process with one line that names the variable and exit code 2. "
        "`classifier config` shows what holds on a machine and where each value came from.",
        "",
        "This page is written by `make docs` from the settings in `app/core`.",
    ]
    for section, variables in _sections():
        lines += ["", f"## {section}", "", "| variable | default | allowed | meaning |"]
        lines.append("|---|---|---|---|")
        for variable in variables:
            default = variable.default
            if default not in _WORDS:
                default = f"`{default}`"
            lines.append(
                f"| `{variable.name}` | {default} | {variable.allowed} | {variable.meaning} |"
            )
    return "\n".join(lines) + "\n"


def render_example() -> str:
    """The text of ``.env.example``: every variable, commented out, with its default."""
    lines = ["# Copy to .env; remove the # before what you change. Written by `make docs`."]
    for section, variables in _sections():
        lines += ["", f"# --- {section} ---"]
        for variable in variables:
            lines += ["", f"# {variable.meaning}"]
            lines += [f"# Allowed: {variable.allowed}"] if variable.allowed else []
            lines.append(
                f"#{variable.name}={'' if variable.default in _WORDS else variable.default}"
            )
    return "\n".join(lines) + "\n"


def _sections() -> Iterator[tuple[str, list[Variable]]]:
    variables = list_variables()
    for section in dict.fromkeys(variable.section for variable in variables):
        yield section, [variable for variable in variables if variable.section == section]


def main() -> None:
    """Write both files under the working directory."""
    REFERENCE_PATH.parent.mkdir(exist_ok=True)
    REFERENCE_PATH.write_text(render_reference(), encoding="utf-8")
    EXAMPLE_PATH.write_text(render_example(), encoding="utf-8")


if __name__ == "__main__":
    main()
