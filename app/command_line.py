"""What the `classifier` commands share: options, and how they end."""

import sys
from importlib.util import find_spec
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from app.core.config import get_settings
from app.core.foreign_text import escape_controls
from app.core.redaction import redact_wrong

DEFAULT_URL = ""  # whatever the environment and the settings name: see _choose_url
COMMAND_ATTEMPTS = 3  # of a request that somebody waits for at a terminal: within a second

_SCHEMES = ("http", "https")


def _choose_url(url: str) -> str:
    if not url:
        return f"http://127.0.0.1:{get_settings().listen.port}"
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in _SCHEMES or not parts.hostname:
        raise typer.BadParameter(
            f"{redact_wrong(url)} is no address that begins with http:// or https://"
        )
    return url


UrlOption = Annotated[
    str,
    typer.Option(
        envvar="CLASSIFIER_URL",
        callback=_choose_url,
        show_default="this machine, LISTEN_PORT",
        help="Where the service runs.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def complain(reason: object) -> None:
    """Say in one line what is wrong."""
    print(f"classifier: {escape_controls(str(reason))}", file=sys.stderr)


def stop(reason: object, code: int) -> NoReturn:
    """Say in one line what is wrong, and end. Codes: 1 for what failed, 2 for usage."""
    complain(reason)
    raise typer.Exit(code)


def stop_unanswered(error: object) -> NoReturn:
    """Say that no service answers, and what helps."""
    stop(f"{error}; `classifier up` starts one, --url names another", 2)


def require_worker() -> None:
    """Stop unless what the extra ``worker`` installs is there."""
    missing = [name for name in ("celery", "numpy", "PIL") if find_spec(name) is None]
    if missing:
        stop(
            f"{missing[0]} is missing: install the worker too, "
            "pip install '.[worker]' in the project's folder",
            2,
        )
