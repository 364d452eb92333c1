"""A client of Server-Sent Events that shows what came, comments and all."""

import json
from typing import Any, Self

import httpx2

# Less than between two comments, or these would keep a test waiting for an event that never comes.
PATIENCE_SECONDS = 12


class EventSource:
    """One answer, read block by block. A context manager; leaving it hangs up."""

    def __init__(self, url: str, last_event_id: str | None = None) -> None:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        self._client = httpx2.Client(timeout=PATIENCE_SECONDS)
        request = self._client.build_request("GET", url, headers=headers)
        self.response = self._client.send(request, stream=True)
        self._lines = self.response.iter_lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._client.close()

    def read_block(self) -> dict[str, str]:
        """The fields up to the next empty line; a comment's name is empty. Empty at the end."""
        fields = {}
        for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        return fields

    def read_event(self) -> dict[str, str]:
        """The next block that is an event; empty when the server has ended the stream."""
        while block := self.read_block():
            if "data" in block:
                return block
        return {}

    def read_status(self) -> tuple[str, int]:
        """Status and progress in the next event."""
        document: dict[str, Any] = json.loads(self.read_event()["data"])
        return document["status"], document["progress"]

    def read_to_end(self) -> list[tuple[str, int]]:
        """Status and progress in all further events, until the server ends the stream."""
        documents = []
        while event := self.read_event():
            documents.append(json.loads(event["data"]))
        return [(document["status"], document["progress"]) for document in documents]
