"""Values in a request's query: each given once, and what is allowed, or refused in words."""

import re
from enum import StrEnum
from typing import TypeVar

from starlette.requests import Request

from app.core.errors import InvalidRequestError

Choice = TypeVar("Choice", bound=StrEnum)

_NUMBER = re.compile(r"[0-9]{1,16}")


def read_number(request: Request, name: str, default: int, smallest: int, largest: int) -> int:
    """A whole number. Raises :class:`InvalidRequestError` for what is none, or out of range."""
    texts = request.query_params.getlist(name)
    if not texts:
        return default
    if len(texts) == 1 and _NUMBER.fullmatch(texts[0]) and smallest <= int(texts[0]) <= largest:
        return int(texts[0])
    raise InvalidRequestError(f"{name} must be a number from {smallest:,} to {largest:,}.")


def read_choice(request: Request, name: str, choices: type[Choice]) -> Choice | None:
    """One of a few words, ``None`` without any. Raises :class:`InvalidRequestError`."""
    texts = request.query_params.getlist(name)
    if not texts:
        return None
    if len(texts) == 1 and texts[0] in list(choices):
        return choices(texts[0])
    raise InvalidRequestError(f"{name} must be one of {', '.join(choices)}.")
