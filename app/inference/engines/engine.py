"""The port: what every engine offers, whatever computes inside it."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.core.config import EngineName

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

Forms = Mapping[int, Callable[[Pixels], Probabilities]]
"""A model by the number of images that it takes at once, exactly."""


class Engine(Protocol):
    """A loaded model, for one thread at a time."""

    name: EngineName
    portion: int
    """Images that go through at once, best of all. More of them take proportionally longer, so
    whoever has a long batch can pass it on in portions and say in between how far it is."""

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3), N ≥ 1, of the model's input size → probabilities (N, classes)."""
        ...


# What the runtimes' errors say when memory is short; only Python itself has a type for that.
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "bad allocation", "allocate memory", "to allocate")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine failed for want of memory, which may pass."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY)


def predict_in_portions(forms: Forms, batch: Pixels) -> Probabilities:
    """Run the forms of a model as often as the batch needs, the largest that it fills first.

    What is left for the smallest form is filled up with copies. The result of a form may be
    overwritten by its next call.
    """
    sizes = sorted(forms, reverse=True)
    answers: list[Probabilities] = []
    start = 0
    while start < len(batch):
        size = next((size for size in sizes if size <= len(batch) - start), sizes[-1])
        portion = batch[start : start + size]
        missing = size - len(portion)
        if missing:
            portion = np.concatenate([portion, np.repeat(portion[-1:], missing, axis=0)])
        answers.append(np.array(forms[size](portion)[: size - missing], dtype=np.float32))
        start += size
    return np.concatenate(answers)
