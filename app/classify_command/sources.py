"""What the command line classifies: files, folders, globs, addresses, standard input."""

import glob
import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx2

from classifier_client import ImageSource
from classifier_client.connection import is_loopback

STANDARD_INPUT = "-"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_SCHEMES = ("http://", "https://")
_LARGEST_DOWNLOAD_BYTES = 100 * 2**20  # services take a tenth of that unless told otherwise
_DOWNLOAD_SECONDS = 30.0


class SourceError(Exception):
    """Raised when an argument names nothing to classify; its text says why."""


class Source(Protocol):
    """An image and where it comes from. ``name``: what users are told."""

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> str | None:
        """What it is a part of, such as a folder, if anything."""

    def identify(self) -> str:
        """What tells it from all others and from itself when it has changed.

        Raises :class:`OSError`.
        """

    async def read(self) -> ImageSource:
        """Raises :class:`OSError`, :class:`httpx2.HTTPError`, :class:`httpx2.InvalidURL`."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file. ``name``: its path as the user gave it."""

    name: str

    @property
    def root(self) -> str:
        return os.path.dirname(os.path.abspath(self.name))

    def identify(self) -> str:
        facts = os.stat(self.name)
        return f"{os.path.abspath(self.name)} {facts.st_size} {facts.st_mtime_ns}"

    async def read(self) -> ImageSource:
        return Path(self.name)


@dataclass(frozen=True, slots=True)
class FolderFile(FileSource):
    """A file that lies somewhere in a folder that was named."""

    folder: str

    @property
    def root(self) -> str:
        return os.path.abspath(self.folder)


@dataclass(frozen=True, slots=True)
class UnreadableFolder(FolderFile):
    """A folder there that can't be listed, in place of the images in it."""

    reason: str

    def identify(self) -> str:
        raise OSError(f"The images in this folder are left out: {self.reason}")


@dataclass(frozen=True, slots=True)
class WebSource:
    """An image at an address; fetched by this command, not by the service."""

    name: str

    @property
    def root(self) -> str:
        return self.name.split("/")[2]

    def identify(self) -> str:
        return self.name

    async def read(self) -> ImageSource:
        content = bytearray()
        has_proxy = not is_loopback(self.name)
        async with (
            httpx2.AsyncClient(
                follow_redirects=True, timeout=_DOWNLOAD_SECONDS, trust_env=has_proxy
            ) as http,
            http.stream("GET", self.name) as response,
        ):
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _LARGEST_DOWNLOAD_BYTES:
                    raise OSError(f"more than {_LARGEST_DOWNLOAD_BYTES:,} bytes")
        return bytes(content)


@dataclass(frozen=True, slots=True)
class StandardInput:
    """What was piped in."""

    content: bytes
    name: str = STANDARD_INPUT
    root: None = None

    def identify(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    async def read(self) -> ImageSource:
        return self.content


def is_image_name(name: str) -> bool:
    """Whether a file in a folder is taken for an image; one that is named needs no such name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _SUFFIXES


def find_sources(arguments: Iterable[str]) -> list[Source]:
    """What the arguments name, in their order, folders sorted by name.

    Raises :class:`SourceError` for an argument that names nothing.
    """
    arguments = list(arguments)
    if arguments.count(STANDARD_INPUT) > 1:
        raise SourceError("standard input can be read only once")
    return [source for argument in arguments for source in _expand(argument)]


def _expand(argument: str) -> list[Source]:
    if argument == STANDARD_INPUT:
        return [StandardInput(sys.stdin.buffer.read())]
    if argument.lower().startswith(_SCHEMES):
        return [WebSource(argument)]
    if os.path.isdir(argument):
        return _search(argument)
    if os.path.exists(argument):
        return [FileSource(argument)]
    if "://" in argument:
        raise SourceError(f"can't fetch {argument}: only http:// and https:// addresses")
    if not glob.has_magic(argument):
        raise SourceError(f"no such file or folder: {argument}")
    names = (name for name in glob.iglob(argument, recursive=True) if os.path.isfile(name))
    matches = [FileSource(name) for name in sorted(names)]
    if not matches:
        raise SourceError(f"no file matches {argument}")
    return list(matches)


def _search(folder: str) -> list[Source]:
    files: list[Source] = []
    errors: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (os.path.join(parent, name) for name in sorted(names) if is_image_name(name))
        files += (FolderFile(path, folder) for path in paths)
    if not files and errors:
        raise SourceError(f"can't read {errors[0].filename}: {errors[0].strerror}")
    if not files:
        raise SourceError(f"no JPEG or PNG files in {folder}")
    return files + [
        UnreadableFolder(error.filename, folder, str(error.strerror)) for error in errors
    ]
