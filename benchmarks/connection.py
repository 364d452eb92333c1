"""A client that costs next to nothing: the cores are the service's."""

import asyncio


class Connection:
    """One connection. Requests are made beforehand and written at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """A connection to a server on this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send a request; gives the answer's status, its head in lower case, and its body."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head[9:12]), head, await self._reader.readexactly(length)
