"""Server-Sent Events, read from chunks of bytes (HTML Living Standard, 9.2.6)."""

import codecs
import re
from collections.abc import Iterator

# Not str.splitlines: that breaks lines at characters which JSON leaves as they are.
_LINE_END = re.compile(r"\r\n|\n|\r")


class EventStream:
    """Turns the chunks of one response into the data of its events.

    ``last_id``: of the last event, for reconnecting. ``retry_seconds``: how long the server asks
    to wait before that, if it does.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_seconds: float | None = None
        self._id = last_id
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of the events that this chunk completes."""
        text = self._rest + self._decoder.decode(chunk)
        # The other half of a \r\n may be yet to come.
        half, text = ("\r", text[:-1]) if text.endswith("\r") else ("", text)
        *lines, rest = _LINE_END.split(text)
        self._rest = rest + half
        for line in lines:
            if line:
                self._read(line)
                continue
            self.last_id = self._id
            if self._data:
                data = "\n".join(self._data)
                self._data.clear()
                yield data

    def _read(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "id":
            self._id = value
        elif field == "retry" and value.isascii() and value.isdecimal():
            self.retry_seconds = int(value) / 1000
