"""A worker whose engine falls into traps: single-coloured images that each do harm of one kind.

``python -m tests.faults.trapped_worker worker`` takes the place of ``python -m app.cli worker``.
"""

import os
import resource
import signal
import time
from enum import Enum

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

import app.tasks.worker
from app.cli import main
from app.core.config import Settings
from app.inference.engines.engine import Engine
from app.models.ml_models import LoadedModel, PreparedModel, load_model
from tests.image_files import encode

# How much more than a child uses once its model is loaded it may ever use.
MARGIN_VARIABLE = "FAULTS_MEMORY_MARGIN_BYTES"
_SIDE = 64
_MUCH_BYTES = 1 << 32


class Trap(Enum):
    """Colours and what the engine does when it sees one."""

    DEADLY = (255, 0, 255)
    """The process ends at once."""
    HANGING = (0, 255, 255)
    """Nothing but SIGKILL ends it."""
    SLEEPING = (255, 255, 0)
    """It takes for ever, but an exception can interrupt it."""
    GREEDY = (0, 255, 0)
    """It needs more memory than there is, where a margin is set."""

    def render(self) -> bytes:
        """The image that sets it off. PNG: the colour must survive."""
        return encode(Image.new("RGB", (_SIDE, _SIDE), self.value), "PNG")


class TrappedEngine:
    """An engine that looks at every image first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.portion = engine.portion

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        for image in batch:
            for trap in Trap:
                if (image == trap.value).all():
                    _spring(trap)
        return self._engine.predict(batch)


def _spring(trap: Trap) -> None:
    if trap is Trap.DEADLY:
        os._exit(1)
    if trap is Trap.HANGING:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if trap is Trap.GREEDY:
        bytearray(_MUCH_BYTES)
    while True:
        time.sleep(60)


def _load_trapped_model(prepared: PreparedModel, settings: Settings) -> LoadedModel:
    model = load_model(prepared, settings)
    margin = int(os.environ.get(MARGIN_VARIABLE, "0"))
    if margin:
        limit = psutil.Process().memory_info().vms + margin
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return LoadedModel(model.manifest, TrappedEngine(model.engine))


if __name__ == "__main__":
    app.tasks.worker.load_model = _load_trapped_model
    main()
