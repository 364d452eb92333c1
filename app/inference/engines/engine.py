"""The port: what every engine offers, whatever computes inside it."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.core.config import EngineName

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


class Engine(Protocol):
    """A loaded model, for one thread at a time."""

    name: EngineName
    portion: int
    """Images that go through at once. More of them take proportionally longer, so whoever has a
    long batch can pass it on in portions and say in between how far it is."""

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3), N ≥ 1, of the model's input size → probabilities (N, classes)."""
        ...


# What the runtimes' errors say when memory is short; only Python itself has a type for that.
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "bad allocation", "allocate memory", "to allocate")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine failed for want of memory, which may pass."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY)


def predict_in_portions(
    run: Callable[[Pixels], Probabilities], batch: Pixels, size: int
) -> Probabilities:
    """Run a model that takes exactly ``size`` images as often as it needs; pads the last time.

    ``run``'s result may be overwritten by its next call.
    """
    answers: list[Probabilities] = []
    for start in range(0, len(batch), size):
        portion = batch[start : start + size]
        missing = size - len(portion)
        if missing:
            portion = np.concatenate([portion, np.repeat(portion[-1:], missing, axis=0)])
        answers.append(np.array(run(portion)[: size - missing], dtype=np.float32))
    return np.concatenate(answers)
