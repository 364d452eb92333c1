"""What `classifier up` shows: one stream of lines from several sources."""

import contextlib
from typing import BinaryIO

from app.core.foreign_text import escape_controls

_COLOURS = {"up": 35, "api": 36, "worker": 32, "redis": 33, "webhooks": 34}


class Terminal:
    """One stream of lines from several sources, each marked with where it comes from."""

    def __init__(self, stream: BinaryIO, *, colours: bool) -> None:
        self._stream = stream
        self._held: dict[str, list[bytes]] = {}
        self._prefixes = {
            source: (
                f"\x1b[{colour}m{source:>6}\x1b[0m │ " if colours else f"{source:>6} | "
            ).encode()
            for source, colour in _COLOURS.items()
        }

    def write(self, source: str, line: bytes) -> None:
        """Write one line of a source, or keep it while the source is held."""
        # Children write plain lines; what they quote may be anything.
        text = line.decode(errors="backslashreplace").rstrip("\r")
        line = "\t".join(map(escape_controls, text.split("\t"))).encode()
        if source in self._held:
            self._held[source].append(line)
        else:
            self._emit(self._prefixes[source] + line)

    def say(self, text: str) -> None:
        """Write a line of the supervisor's own."""
        self.write("up", text.encode())

    def show(self, text: str) -> None:
        """Write lines without a mark, fit to be copied."""
        self._emit(text.encode())

    def hold(self, source: str) -> None:
        """Keep the source's lines back."""
        self._held[source] = []

    def release(self, source: str, *, show: bool) -> None:
        """Let the source speak again; ``show`` what it said in the meantime."""
        for line in self._held.pop(source, []) if show else ():
            self._emit(self._prefixes[source] + line)
        self._held.pop(source, None)

    def _emit(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # children must not block on an unread pipe
            self._stream.write(line + b"\n")
            self._stream.flush()
