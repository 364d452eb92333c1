"""What a run has sent and learned, for the same run started again, until one learns all there is.

One file for each service, options and set of folders, in the user's state folder. A line is
written before an image is sent, with the idempotency key that it is sent under, and after each
answer. So whenever a run is killed, the next one knows the job or the key of each image, and the
service makes no second job of either.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from platformdirs import user_state_path

from app.classify_command.sources import Source

# As long as the service remembers idempotency keys. Answers that old are better asked for anew.
_KEPT_SECONDS = 24 * 3600
_SUFFIX = ".jsonl"


@dataclass(slots=True)
class Entry:
    """One image: the key it is sent under, then its job, then what came of that."""

    identity: str
    key: str
    job_id: str | None = None
    answer: dict[str, Any] | None = None

    def to_json(self) -> str:
        return json.dumps([self.identity, self.key, self.job_id, self.answer])


class Journal:
    """The entries of this run and of those before it that did not learn all.

    ``is_kept``: whether the next run has it.
    """

    is_kept = True

    def __init__(self, path: Path, file: TextIOBase) -> None:
        self._path = path
        self._file = file
        self._earlier: dict[str, list[Entry]] = {}
        entries: dict[str, Entry] = {}
        for line in file:
            try:
                entry = Entry(*json.loads(line))
            except (TypeError, ValueError):
                continue  # half a line, where a kill hit
            entries[entry.key] = entry
        for entry in entries.values():
            self._earlier.setdefault(entry.identity, []).append(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def count_sent(self, sources: Iterable[Source]) -> int:
        """How many of these earlier runs have surely sent; there may be others."""
        return sum(map(self._has_sent, sources)) if self._earlier else 0

    def _has_sent(self, source: Source) -> bool:
        try:
            entries = self._earlier.get(source.identify(), ())
        except OSError:
            return False
        return any(entry.job_id or entry.answer for entry in entries)

    def take(self, identity: str) -> Entry:
        """The entry of an earlier run, or a new one, not yet written."""
        if entries := self._earlier.get(identity):
            return entries.pop()
        return Entry(identity, str(uuid4()))

    def write(self, entry: Entry) -> None:
        """Keep what is known now, even should this process be killed next."""
        self._file.write(entry.to_json() + "\n")
        self._file.flush()

    def finish(self) -> None:
        """Forget this run: every image has its answer. What others left undone is kept."""
        rest = [entry for entries in self._earlier.values() for entry in entries]
        if not rest:
            self._path.unlink(missing_ok=True)
            return
        self._file.truncate(0)
        self._file.seek(0)
        for entry in rest:
            self.write(entry)


class NoJournal(Journal):
    """Remembers nothing."""

    is_kept = False

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), open(os.devnull, "r+", encoding="utf-8"))

    def finish(self) -> None:
        """There is nothing to forget."""


def open_journal(url: str, options: Any, roots: Iterable[str], *, fresh: bool) -> Journal:
    """The journal of runs with this service, these options and these folders.

    ``fresh``: an empty one. Raises :class:`OSError` while another process uses it, and when the
    user's state folder can't be used.
    """
    folder = user_state_path("classifier") / "runs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_old(folder)
    text = json.dumps([url, options, sorted(roots)])
    path = folder / (hashlib.sha256(text.encode()).hexdigest()[:32] + _SUFFIX)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BlockingIOError("another run with these options and folders is under way") from None
    if fresh:
        file.truncate(0)
    file.seek(0)
    return Journal(path, file)


def _forget_old(folder: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for path in folder.glob(f"*{_SUFFIX}"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
