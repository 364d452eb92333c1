"""Whole HTTP requests that upload an image, made beforehand so that sending one costs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BOUNDARY = b"classifier-benchmark"


@dataclass(frozen=True)
class UploadForm:
    """How a server takes an image: where, and raw or in which field of a multipart form."""

    path: str
    field_name: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self, image: bytes) -> bytes:
        """The request's bytes."""
        headers, body = self.split(image)
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def split(self, image: bytes) -> tuple[dict[str, str], bytes]:
        """Headers and body."""
        if self.field_name is None:
            kind, body = "image/jpeg", image
        else:
            kind = f"multipart/form-data; boundary={_BOUNDARY.decode()}"
            body = self._render_form(image)
        return {**self.headers, "Content-Type": kind, "Content-Length": str(len(body))}, body

    def _render_form(self, image: bytes) -> bytes:
        head = (
            f'Content-Disposition: form-data; name="{self.field_name}"; filename="image.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        return b"--%b\r\n%b%b\r\n--%b--\r\n" % (_BOUNDARY, head.encode(), image, _BOUNDARY)

    def write_requests(self, images: list[Path], folder: Path) -> Path:
        """One file a request, ``0.http`` and so on, for the load generator; gives the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            (folder / f"{number}.http").write_bytes(self.render(image.read_bytes()))
        return folder


THROUGHPUT_HEADERS = {"Prefer": "wait=30", "Cache-Control": "no-store"}
"""One request, one answer; and identical images must not be answered from the result cache."""

SERVICE_FORM = UploadForm("/classify", "file", THROUGHPUT_HEADERS)
"""How the service is asked when it is compared with servers that answer at once."""
