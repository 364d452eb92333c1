"""A disk of a few megabytes for uploads, in a mount namespace of its own: no root needed."""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

DISK_BYTES = 16 << 20
_BALLAST = "ballast"
_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@cache
def find_disk_obstacle() -> str | None:
    """Why there can be no such disk here, or ``None``."""
    try:
        command = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        run = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "Debian's util-linux is not installed"
    return f"no user namespaces here: {run.stderr.strip()}" if run.returncode else None


class SmallDisk:
    """Mounted at ``folder`` for those processes alone that run inside :attr:`wrap`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        script = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && echo && exec sleep infinity'
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", script, str(folder)], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n", "the small disk can't be mounted"
        # The same folder, seen from here.
        self.folder = Path(f"/proc/{self._holder.pid}/root{folder.absolute()}")

    @property
    def wrap(self) -> Sequence[str]:
        """What goes before a command that is to see the disk."""
        pid = str(self._holder.pid)
        return ["nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials"]

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / _BALLAST).open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _BALLAST).unlink()

    def close(self) -> None:
        """End the namespace, and the disk with it."""
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
