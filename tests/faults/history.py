"""What the ledger's history says of every job."""

from collections import defaultdict
from dataclasses import dataclass, field

import redis

from app.core import keys

TERMINAL = frozenset({"completed", "failed", "cancelled"})
_ENTRIES_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry: a job entered ``state``, under its claim number ``attempt``."""

    state: str
    attempt: int | None
    at_ms: int


@dataclass(slots=True)
class Course:
    """A job's transitions, oldest first."""

    transitions: list[Transition] = field(default_factory=list)

    def ended_at(self) -> float | None:
        """When it first became terminal, in seconds since the epoch; ``None`` if it has not."""
        return next(
            (item.at_ms / 1000 for item in self.transitions if item.state in TERMINAL), None
        )

    def find_fault(self) -> str | None:
        """What is against the promise: a second end, life after the end, a stale claim's end."""
        claims = 0
        ended = False
        for item in self.transitions:
            if ended:
                return f"{item.state} after its end"
            if item.state == "processing":
                claims += 1
            elif item.state in TERMINAL:
                ended = True
                if item.attempt is not None and item.attempt != claims:
                    return f"{item.state} by claim {item.attempt} of {claims}"
        return None


class History:
    """Reads the stream from now on, as it grows."""

    def __init__(self, client: "redis.Redis") -> None:
        last = client.xrevrange(keys.HISTORY, count=1)
        self._last: str | bytes = last[0][0] if last else "0-0"
        self.courses: defaultdict[str, Course] = defaultdict(Course)

    def read(self, client: "redis.Redis") -> None:
        """Take in what was added since the last time."""
        while True:
            start = b"(" + (self._last if isinstance(self._last, bytes) else self._last.encode())
            entries = client.xrange(keys.HISTORY, min=start, count=_ENTRIES_AT_ONCE)
            for entry_id, fields in entries:
                self._last = entry_id
                if b"job" not in fields:
                    continue  # the end of a batch
                attempt = fields.get(b"attempt")
                self.courses[fields[b"job"].decode()].transitions.append(
                    Transition(
                        fields[b"state"].decode(),
                        None if attempt is None else int(attempt),
                        int(entry_id.split(b"-")[0]),
                    )
                )
            if len(entries) < _ENTRIES_AT_ONCE:
                return
