"""How an answer shall look: how many predictions, how sure, and by which model."""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache

DEFAULT_TOP_K = 5
LARGEST_TOP_K = 100


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What a sender chose.

    ``top_k``: predictions at most; ``threshold``: without those of a smaller confidence; ``model``:
    the name of the model that answers, empty for whichever the worker has.
    """

    top_k: int = DEFAULT_TOP_K
    threshold: float = 0.0
    model: str = ""

    def to_json(self) -> str:
        """What differs from the defaults; empty when nothing does, as nearly always."""
        if self == DEFAULT_OPTIONS:
            return ""
        defaults = asdict(DEFAULT_OPTIONS)
        chosen = {name: value for name, value in asdict(self).items() if value != defaults[name]}
        return json.dumps(chosen, separators=(",", ":"))


DEFAULT_OPTIONS = AnswerOptions()


# A sender asks for the same thing again and again.
@lru_cache(maxsize=256)
def parse_options(text: str) -> AnswerOptions:
    """Read what :meth:`AnswerOptions.to_json` wrote."""
    return AnswerOptions(**json.loads(text)) if text else DEFAULT_OPTIONS
