"""What a client and Redis say to each other on one connection: which answer belongs to what."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import hiredis

Command = tuple[bytes, ...]

# After these Redis speaks unasked, so that answers can no longer be counted off.
_ENDLESS = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"MONITOR")

# What no peer can say: nil and false are answers.
_INCOMPLETE = object()


class Conversation:
    """Follows a connection from its first byte; fed with every chunk of either direction."""

    def __init__(self) -> None:
        self._requests = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._answers = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._open: deque[Command] = deque()
        self._transaction: list[Command] = []
        self._is_endless = False

    def hear_client(self, chunk: bytes) -> None:
        """Note the commands that the chunk completes."""
        if self._is_endless:
            return
        self._requests.feed(chunk)
        try:
            requests = list(_read(self._requests))
        except hiredis.ProtocolError:
            # HTTP, say: passed on all the same.
            self._is_endless = True
            return
        for words in requests:
            command = tuple(word.upper() for word in words[:2])
            if command[0] in _ENDLESS:
                self._is_endless = True
                return
            self._open.append(command)

    def hear_redis(self, chunk: bytes) -> list[tuple[Command, Any]]:
        """The answers that the chunk completes, each with its command in capitals.

        Commands inside MULTI come with their part of EXEC's answer.
        """
        if self._is_endless:
            return []
        self._answers.feed(chunk)
        pairs: list[tuple[Command, Any]] = []
        for answer in _read(self._answers):
            if isinstance(answer, hiredis.PushNotification) or not self._open:
                continue
            command = self._open.popleft()
            if answer in (b"QUEUED", "QUEUED"):
                self._transaction.append(command)
            elif command[0] in (b"EXEC", b"DISCARD"):
                parts = answer if isinstance(answer, list) else []
                pairs += zip(self._transaction, parts, strict=False)
                self._transaction = []
            else:
                pairs.append((command, answer))
        return pairs


def _read(reader: hiredis.Reader) -> Iterator[Any]:
    while (value := reader.gets()) is not _INCOMPLETE:
        yield value
