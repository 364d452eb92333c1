"""What a sender chooses of an answer: ``?top_k=3&threshold=0.5&model=NAME``."""

import re

from starlette.requests import Request

from app.api.direct_route import get_service
from app.core.errors import InvalidRequestError
from app.jobs.answer_options import DEFAULT_OPTIONS, LARGEST_TOP_K, AnswerOptions

_WHOLE = re.compile(r"[0-9]{1,3}")
_DECIMAL = re.compile(r"[0-9]{0,20}\.?[0-9]{1,20}(?:[eE][+-]?[0-9]{1,3})?")

# As long as a manifest's may be, and nothing that could harm a log or a terminal.
_LONGEST_NAME = 100


async def read_answer_options(request: Request) -> AnswerOptions:
    """The query's ``top_k``, ``threshold`` and ``model``.

    Raises :class:`InvalidRequestError` for what is out of range, and for a model that no worker
    has. While there is no worker nobody knows: the job waits for one that has the model.
    """
    if not request.scope["query_string"]:
        return DEFAULT_OPTIONS
    return AnswerOptions(
        top_k=_read_top_k(_find(request, "top_k")),
        threshold=_read_threshold(_find(request, "threshold")),
        model=await _read_model(request),
    )


def _find(request: Request, name: str) -> str | None:
    texts = request.query_params.getlist(name)
    if len(texts) > 1:
        raise InvalidRequestError(f"{name} must be given once.")
    return texts[0] if texts else None


def _read_top_k(text: str | None) -> int:
    if text is None:
        return DEFAULT_OPTIONS.top_k
    if _WHOLE.fullmatch(text) and 1 <= int(text) <= LARGEST_TOP_K:
        return int(text)
    raise InvalidRequestError(f"top_k must be a whole number from 1 to {LARGEST_TOP_K}.")


def _read_threshold(text: str | None) -> float:
    if text is None:
        return DEFAULT_OPTIONS.threshold
    if _DECIMAL.fullmatch(text) and 0 <= float(text) <= 1:
        return float(text)
    raise InvalidRequestError("threshold must be a number from 0 to 1.")


async def _read_model(request: Request) -> str:
    text = _find(request, "model")
    if text is None:
        return DEFAULT_OPTIONS.model
    models = await get_service(request).list_models()
    if models and text not in models:
        raise InvalidRequestError(f"model must be {' or '.join(models)}.")
    if 0 < len(text) <= _LONGEST_NAME and text.isprintable():
        return text
    raise InvalidRequestError("model must be the name of a model; GET /health lists them.")
