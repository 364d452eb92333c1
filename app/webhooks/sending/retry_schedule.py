"""When a delivery that failed is tried again: the example of Standard Webhooks, over three days."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)

# What failed together shall not come back together.
_JITTER = 0.2

# No receiver silences the service for longer than the longest pause of our own.
LONGEST_SILENCE_SECONDS = 86_400


def find_delay(failed_before: int) -> float | None:
    """Seconds until the next attempt after so many that failed, and one; ``None``: give up."""
    if failed_before >= len(RETRY_SECONDS):
        return None
    return RETRY_SECONDS[failed_before] * random.uniform(1 - _JITTER, 1 + _JITTER)


def read_retry_after(text: str) -> float:
    """Seconds that the header ``Retry-After`` asks for, capped; 0 where it says nothing useful."""
    try:
        seconds = float(text) if text.isdecimal() else _seconds_until(text)
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_SILENCE_SECONDS)


def _seconds_until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
