"""Where an image comes from: a path, its bytes, or an open file."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

ImageSource = str | os.PathLike[str] | bytes | BinaryIO

_NAMELESS = "image"  # the service does not look at names; forms want one


class FileReader:
    """A file that is open only while it is read: a process may not have a thousand open at once.

    Has what httpx2 wants of a file. Raises :class:`OSError` at once when it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        with path.open("rb") as file:
            self._size = os.fstat(file.fileno()).st_size

    def tell(self) -> int:
        """Where it begins: httpx2 asks before it has read anything."""
        return 0

    def seek(self, _: int, whence: int = os.SEEK_SET) -> int:
        """Go back to the beginning; or tell where the end is, which is how httpx2 measures."""
        self.close()
        return self._size if whence == os.SEEK_END else 0

    def read(self, size: int) -> bytes:
        """The next bytes, none at the end."""
        if self._file is None:
            self._file = self._path.open("rb")
        data = self._file.read(size)
        if not data:
            self.close()
        return data

    def close(self) -> None:
        """Nobody reads on."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image that can be sent more than once, should an answer get lost."""

    filename: str
    content: bytes | Path

    def open(self) -> io.BytesIO | FileReader:
        """From its beginning. Raises :class:`OSError` when a file can't be read."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return FileReader(self.content)


def create_image(source: ImageSource) -> Image:
    """``str`` is a path. An open file is read from where it stands, here and once."""
    if isinstance(source, bytes):
        return Image(_NAMELESS, source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return Image(_as_text(path.name), path)
    name = getattr(source, "name", None)
    filename = _as_text(Path(name).name) if isinstance(name, str) else _NAMELESS
    return Image(filename, source.read())


def _as_text(name: str) -> str:
    """Without the surrogates that stand for the bytes of a name that is not UTF-8."""
    return name.encode(errors="replace").decode()
