"""The square that the built-in model takes, for tests that need no model."""

from typing import NamedTuple


class Framing(NamedTuple):
    """See :class:`app.inference.images.Framing`."""

    input_size: int = 224
    resize: int = 256
    crop: int = 224


FRAMING = Framing()
