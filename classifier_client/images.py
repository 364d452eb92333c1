"""Where an image comes from: a path, its bytes, or an open file."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ImageSource = str | os.PathLike[str] | bytes | BinaryIO

_NAMELESS = "image"  # the service does not look at names; forms want one


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be sent more than once, should an answer get lost."""

    filename: str
    content: bytes | Path

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """From its beginning. Raises :class:`OSError` when a file can't be read."""
        if isinstance(self.content, bytes):
            yield io.BytesIO(self.content)
            return
        with self.content.open("rb") as file:
            yield file


def create_image(source: ImageSource) -> Image:
    """``str`` is a path. An open file is read from where it stands, here and once."""
    if isinstance(source, bytes):
        return Image(_NAMELESS, source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Image(path.name, path)
    name = getattr(source, "name", None)
    return Image(Path(name).name if isinstance(name, str) else _NAMELESS, source.read())
