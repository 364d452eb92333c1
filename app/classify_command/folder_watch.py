"""Images as they appear in a folder, told by the kernel (Linux's inotify)."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Self

from asyncinotify import Inotify, Mask

from app.classify_command.sources import FileSource, SourceError, is_image_name
from app.command_line import complain

# When a file is whole: closed after it was written, or moved here.
_WHOLE = Mask.CLOSE_WRITE | Mask.MOVED_TO


class FolderWatch:
    """What happens in ``folder`` from the moment this is made; not in the folders within it.

    Close it. Raises :class:`SourceError` for what is no folder.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._stopped = asyncio.Event()
        self._inotify = Inotify()
        try:
            self._inotify.add_watch(folder, _WHOLE | Mask.ONLYDIR)
        except OSError as error:
            self._inotify.close()
            raise SourceError(f"can't watch {folder}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inotify.close()

    def stop(self) -> None:
        """End :meth:`images` when those are told that have appeared."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped.is_set()

    async def images(self) -> AsyncIterator[FileSource]:
        """Each image file that is written or moved there, again when it is written again."""
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            while True:
                event = asyncio.create_task(self._inotify.get())
                await asyncio.wait({event, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    event.cancel()
                    return
                mask, name = event.result().mask, str(event.result().name)
                if Mask.Q_OVERFLOW in mask:
                    complain(f"too much at once in {self.folder}: some files were missed")
                elif Mask.IGNORED in mask:
                    complain(f"{self.folder} is gone")
                    return
                elif mask & _WHOLE and is_image_name(name):
                    yield FileSource(os.path.join(self.folder, name))
        finally:
            stopped.cancel()
