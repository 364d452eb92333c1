"""The registry of models: from the settings to a loaded engine, one a process.

The worker's main process prepares the model once, importing no runtime; each of its children loads
it.
"""

import fcntl
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from app.core.config import EngineName, Settings
from app.core.errors import ConfigurationError
from app.inference.calibration_images import digest_images
from app.inference.engines.catalogue import create_engine
from app.inference.engines.engine import Engine
from app.inference.engines.selection import Plan, choose_engine, measure_engines
from app.inference.engines.trial import Measurement
from app.inference.fingerprints import answer_identity, fingerprint
from app.inference.sources import ModelSource, digest_file, find_source
from app.jobs.answer_options import DEFAULT_OPTIONS, AnswerOptions
from app.models.manifest import ModelManifest

_LOGGER = logging.getLogger("app.models")
# Finer than any engine agrees with another, coarse enough to read.
_CONFIDENCE_DIGITS = 6


class ClassPrediction(TypedDict):
    """One of a result's predictions; ``confidence`` is a probability."""

    class_name: str
    confidence: float


@dataclass(frozen=True)
class PreparedModel:
    """A model whose engine is chosen and whose converted forms lie in ``folder``.

    ``reasons`` say why ``engine`` is not what was ``requested``; empty when all is well.
    """

    source: ModelSource
    digest: str
    requested: EngineName
    engine: EngineName
    folder: Path
    measurements: tuple[Measurement, ...]
    reasons: tuple[str, ...]

    @property
    def manifest(self) -> ModelManifest:
        """The model's manifest."""
        return self.source.manifest

    @cached_property
    def identity(self) -> str:
        """Tells it from models whose answers may differ."""
        return answer_identity(self.digest, self.manifest.model_dump_json())

    @property
    def batches(self) -> bool:
        """Whether the engine has a form for several images at once."""
        return any(item.batches for item in self.measurements if item.engine is self.engine)


class LoadedModel:
    """A model in this process, for one thread at a time.

    ``identity`` as in :class:`PreparedModel`; empty: nobody knows, so its answers are not kept.
    """

    def __init__(self, manifest: ModelManifest, engine: Engine, identity: str = "") -> None:
        self.manifest = manifest
        self.engine = engine
        self.identity = identity

    def classify(
        self,
        images: Sequence[NDArray[np.uint8]],
        options: Iterable[AnswerOptions] = repeat(DEFAULT_OPTIONS),
    ) -> list[list[ClassPrediction]]:
        """Squares from :func:`app.inference.images.decode` → predictions, most confident first.

        ``options``: for each image, how many, and how sure they must be.
        """
        if not images:
            return []
        labels = self.manifest.labels
        answers = []
        predictions = self.engine.predict(np.stack(images))
        if not np.isfinite(predictions).all():
            raise ValueError("the model gave numbers that are no probabilities")
        for probabilities, chosen in zip(predictions, options, strict=False):
            best = np.argsort(-probabilities, kind="stable")[: chosen.top_k]
            if chosen.threshold:
                best = best[probabilities[best] >= chosen.threshold]
            answers.append(
                [
                    ClassPrediction(
                        class_name=labels[index],
                        confidence=round(float(probabilities[index]), _CONFIDENCE_DIGITS),
                    )
                    for index in best
                ]
            )
        return answers


def prepare_model(settings: Settings) -> PreparedModel:
    """Find the model and its engine, trying the engines if that was never done on this machine.

    Imports no runtime. Raises :class:`ConfigurationError` when the model is missing or wrong.
    """
    return _prepare(settings, lambda plan: measure_engines(plan, settings.engine))


def tune_model(
    settings: Settings, fresh: bool, on_trial: Callable[[EngineName], None]
) -> PreparedModel:
    """Like :func:`prepare_model`, but try every engine, whichever is asked for.

    With ``fresh`` what is known is measured again. ``on_trial`` hears of each engine in its turn.
    """

    def measure(plan: Plan) -> tuple[Measurement, ...]:
        if fresh:
            plan.forget()
        return measure_engines(plan, EngineName.AUTO, on_trial)

    return _prepare(settings, measure)


def _prepare(
    settings: Settings, measure: Callable[[Plan], tuple[Measurement, ...]]
) -> PreparedModel:
    source = find_source(settings)
    digest = _check_digest(source)
    threads, images = settings.engine_threads, settings.model.calibration_dir
    key = fingerprint(
        digest,
        source.manifest.model_dump_json(),
        threads,
        None if images is None else digest_images(images),
    )
    folder = settings.cache_dir / key
    with _lock(folder):
        measurements = measure(Plan(source, threads, folder, images and images.absolute()))
    engine, reasons = choose_engine(measurements, settings.engine)
    for reason in reasons:
        _LOGGER.warning(reason)
    manifest = source.manifest
    _LOGGER.info("model %s %s runs on engine %s", manifest.name, manifest.version, engine)
    return PreparedModel(source, digest, settings.engine, engine, folder, measurements, reasons)


def load_model(prepared: PreparedModel, settings: Settings) -> LoadedModel:
    """Load the model into its engine in this process and warm it up.

    Raises :class:`ConfigurationError` when it can't be loaded.
    """
    manifest, folder = prepared.manifest, prepared.folder
    try:
        engine = create_engine(
            prepared.engine, prepared.source, folder, settings.engine_threads, prepared.batches
        )
        size = manifest.input_size
        for count in {1, engine.portion}:
            engine.predict(np.zeros((count, size, size, 3), np.uint8))
    except ConfigurationError:
        raise
    # Runtimes raise what they like about a damaged cache.
    except Exception as error:
        raise ConfigurationError(
            f"{prepared.engine} can't load the model any more, delete {folder} and start again: "
            f"{error}"
        ) from error
    return LoadedModel(manifest, engine, prepared.identity)


def _check_digest(source: ModelSource) -> str:
    digest = digest_file(source.path)
    if source.manifest.digest not in (None, digest):
        raise ConfigurationError(
            f"{source.path} is not the file that its manifest describes: its SHA-256 is {digest}; "
            "copy the file again or correct digest there"
        )
    return digest


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a folder of the cache."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ConfigurationError(
            f"the cache {folder} can't be written, correct MODEL_CACHE_DIR, DATA_DIR or its "
            f"rights: {error.strerror}"
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
