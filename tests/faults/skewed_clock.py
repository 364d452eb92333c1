"""A wall clock that goes ten minutes fast, for one process: a library to preload into it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_LEAST_SECONDS = 500


def find_clock_obstacle() -> str | None:
    """Why no process's clock can be skewed here, or ``None``."""
    if sys.platform != "linux":
        return "only Linux preloads libraries so"
    return None if shutil.which("cc") else "no C compiler: install Debian's gcc"


def build_skewed_clock(folder: Path) -> dict[str, str]:
    """What to add to a process's environment; checks that it works."""
    library = folder / "skewed_clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _SOURCE], check=True)
    environment = {"LD_PRELOAD": str(library)}
    told = subprocess.run(
        [sys.executable, "-c", "import time; time.sleep(0.01); print(time.time())"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(told.stdout) - time.time() > _LEAST_SECONDS, "the clock is not skewed"
    return environment
