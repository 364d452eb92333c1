"""The ``Cancel-After`` header: how long a sender will wait for a worker to come to the job."""

import re

from app.core.errors import InvalidRequestError

# As people write it: 30s, 1m30s, 2h, and a bare number of seconds.
DURATION = r"^(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9}(?:\.[0-9]{1,3})?)s?)?$"

_LONGEST_SECONDS = 7 * 24 * 3600


def read_cancel_after(text: str | None) -> float | None:
    """The header's value in seconds, or ``None`` without one.

    Raises :class:`InvalidRequestError` for what is no duration, zero, or more than a week.
    """
    if text is None:
        return None
    match = re.fullmatch(DURATION, text.strip(" \t"))
    hours, minutes, seconds = match.groups() if match else (None, None, None)
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)
    if not 0 < total <= _LONGEST_SECONDS:
        raise InvalidRequestError(
            "Cancel-After must be a duration such as 30s or 1m30s, at most seven days."
        )
    return total
