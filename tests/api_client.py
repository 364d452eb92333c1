"""Requests to the API as clients make them, and what every error answer must be."""

import struct
import zlib
from pathlib import Path
from typing import Any

from httpx2 import Client, Response

SAMPLE = Path(__file__).parent.parent / "app" / "samples" / "cat.jpg"
UNKNOWN_ID = "0d1bfe2a-57f8-4c0e-9f43-3f6c6f6b7a10"
"""The id of no job."""


def submit(client: Client, data: bytes | None = None, cancel_after: str | None = None) -> Response:
    """Post an image, the sample unless told otherwise."""
    files = {"file": ("x", data or SAMPLE.read_bytes())}
    headers = {} if cancel_after is None else {"Cancel-After": cancel_after}
    return client.post("/classify", files=files, headers=headers)


def png_head(width: int, height: int) -> bytes:
    """The head of a PNG of this size: enough to be accepted."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + body + struct.pack(">I", zlib.crc32(body))


def assert_problem(response: Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document of this kind; returns it."""
    document: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, document["status"]) == (status, status)
    assert (document["code"], document["type"]) == (code, f"/problems/{code}")
    assert document["title"] and document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document
