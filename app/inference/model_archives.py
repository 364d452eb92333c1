"""PyTorch's archives as the examiners of model files open them, and what no model may call."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import ConfigurationError

# Of all operators that a model may call these alone name a file: one maps it into memory, to be
# written too, the other writes it.
FILE_OPERATORS = frozenset({"from_file", "save"})

_ARCHIVE_HEAD = b"PK\x03\x04"
_ARCHIVE_END = b"PK\x05\x06"
_ARCHIVE_END_BYTES = 22


def create_refusal(path: Path, reason: str) -> ConfigurationError:
    """The error that says why a model file is not loaded."""
    return ConfigurationError(
        f"{path} is refused, {reason}: export the model for inference again, or save it as .onnx"
    )


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive that PyTorch's reader surely reads as it is read here.

    Raises :class:`ConfigurationError` where the two could see different entries, and
    :class:`zipfile.BadZipFile` or :class:`OSError` for what is no archive.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        head = file.read(len(_ARCHIVE_HEAD))
        file.seek(max(path.stat().st_size - _ARCHIVE_END_BYTES, 0))
        if head != _ARCHIVE_HEAD or file.read(len(_ARCHIVE_END)) != _ARCHIVE_END:
            raise create_refusal(path, "there is something before or behind its archive")
        # PyTorch's reader takes no notice of case, and of two entries with one name either.
        names = [name.casefold() for name in archive.namelist()]
        if len(set(names)) < len(names):
            name = next(name for name in names if names.count(name) > 1)
            raise create_refusal(path, f"it holds {name} twice")
        yield archive
