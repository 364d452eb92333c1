"""Selection: try the engines, each in a process of its own, and choose one.

Nothing here imports a runtime: the worker's main process, which forks, calls it.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.core.config import EngineName
from app.core.errors import ConfigurationError
from app.inference.engines.artifacts import REFERENCE, graph_path
from app.inference.engines.catalogue import (
    READ_MODEL_FILES,
    find_obstacle,
    list_candidates,
    reference_engine,
)
from app.inference.engines.trial import Measurement, TrialRequest, TrialResult
from app.inference.sources import ModelSource

_LOGGER = logging.getLogger("app.models")
_ROOT = Path(__file__).parents[3]
# Converting a large model on a slow machine takes minutes; a trial that takes more is stuck.
_TRIAL_SECONDS = 600
# Deaths that say nothing about the engine: out of memory, or somebody stopped everything.
_ACCIDENTS = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}


@dataclass(frozen=True)
class Plan:
    """What engines are tried with, and the folder where what they find is kept.

    ``images`` is the folder with the user's calibration images, if any.
    """

    source: ModelSource
    threads: int
    folder: Path
    images: Path | None = None

    def forget(self) -> None:
        """Forget what trials found, so that every engine is tried again."""
        for path in self.folder.glob("trial-*.json"):
            path.unlink()


def measure_engines(
    plan: Plan, requested: EngineName, on_trial: Callable[[EngineName], None] = lambda _: None
) -> tuple[Measurement, ...]:
    """Try the reference and the requested engine, or all of them for ``auto``.

    What is known already is not tried again. ``on_trial`` hears of each engine before its turn.
    Raises :class:`ConfigurationError` when the model is wrong or its reference can't run.
    """
    source = plan.source
    reference = reference_engine(source.kind)
    obstacle = find_obstacle(reference, source.kind)
    if obstacle:
        raise ConfigurationError(f"{source.path} needs {reference}, which is {obstacle}")
    on_trial(reference)
    first = _find_or_run(reference, plan)
    measurements = [] if first.measurement is None else [first.measurement]
    others = list_candidates() if requested is EngineName.AUTO else (requested,)
    for engine in others:
        if engine is reference or _is_needless(engine, requested, first):
            continue
        on_trial(engine)
        obstacle = find_obstacle(engine, source.kind, plan.images)
        if engine not in READ_MODEL_FILES:
            obstacle = obstacle or first.conversion_failure
        if obstacle:
            measurements.append(Measurement(engine=engine, failure=obstacle))
            continue
        result = _find_or_run(engine, plan)
        if result.measurement is not None:
            measurements.append(result.measurement)
    return tuple(measurements)


def _is_needless(engine: EngineName, requested: EngineName, reference: TrialResult) -> bool:
    """Compiling takes most of a minute, for something slower than what runs a graph."""
    auto = requested is EngineName.AUTO
    return auto and engine is EngineName.TORCH_COMPILED and reference.conversion_failure is None


def choose_engine(
    measurements: tuple[Measurement, ...], requested: EngineName
) -> tuple[EngineName, tuple[str, ...]]:
    """The engine to use, and why it is not the one asked for (nothing when it is).

    The fastest usable one for ``auto``; the named one, else the first measured: the reference.
    Raises :class:`ConfigurationError` when none is usable.
    """
    usable = [item for item in measurements if item.failure is None]
    if not usable:
        failures = "; ".join(f"{item.engine}: {item.failure}" for item in measurements)
        raise ConfigurationError(f"no engine can run the model, try another form of it: {failures}")
    if requested is EngineName.AUTO:
        return min(usable, key=lambda item: item.best_milliseconds).engine, ()
    if any(item.engine is requested for item in usable):
        return requested, ()
    failure = next(item.failure for item in measurements if item.engine is requested)
    instead = usable[0].engine
    return instead, (f"ENGINE={requested} can't be used ({failure}); {instead} is used instead",)


def _find_or_run(engine: EngineName, plan: Plan) -> TrialResult:
    source, folder = plan.source, plan.folder
    path = folder / f"trial-{engine}.json"
    is_reference = engine is reference_engine(source.kind)
    known = _find_result(path)
    if known and (not is_reference or _is_complete(known, folder)):
        return known
    request = TrialRequest(
        engine=engine,
        is_reference=is_reference,
        path=source.path.absolute(),
        kind=source.kind,
        manifest=source.manifest,
        threads=plan.threads,
        folder=folder,
        images=plan.images,
    )
    result = _run(request, path)
    if result.bad_model:
        path.unlink()
        raise ConfigurationError(result.bad_model)
    if result.measurement is not None:
        _LOGGER.info("engine %s", describe(result.measurement))
    return result


def describe(measurement: Measurement) -> str:
    """One line for the log."""
    text = str(measurement.engine)
    if measurement.milliseconds is not None:
        text += f": {measurement.milliseconds:.1f} ms an image"
    if measurement.agreement is not None:
        agreement = measurement.agreement
        text += (
            f", same class for {agreement.same_class} of {agreement.images} images, "
            f"probabilities differ by {agreement.mean_difference:.4f} on average"
        )
    return f"{text}, unusable: {measurement.failure}" if measurement.failure else text


def _find_result(path: Path) -> TrialResult | None:
    try:
        return TrialResult.model_validate_json(path.read_bytes())
    # A file that an older version or a full disk left behind is as good as none.
    except (OSError, ValueError):
        return None


def _is_complete(result: TrialResult, folder: Path) -> bool:
    graph = result.conversion_failure is not None or graph_path(folder).exists()
    return graph and (folder / REFERENCE).exists()


def _run(request: TrialRequest, path: Path) -> TrialResult:
    """Run a trial. An engine that crashes by itself is remembered as unusable."""
    try:
        process = subprocess.run(
            [sys.executable, "-m", "app.inference.engines.trial", str(path)],
            input=request.model_dump_json().encode(),
            capture_output=True,
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(request.threads)},
            timeout=_TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _crash(request, f"took more than {_TRIAL_SECONDS} seconds")
    result = _find_result(path) if process.returncode == 0 else None
    if result is not None:
        return result
    last = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
    result = _crash(
        request, f"crashed with exit code {process.returncode} {' '.join(last)}".strip()
    )
    if process.returncode not in _ACCIDENTS and not request.is_reference:
        path.write_text(result.model_dump_json(), encoding="utf-8")
    return result


def _crash(request: TrialRequest, reason: str) -> TrialResult:
    if request.is_reference:
        raise ConfigurationError(f"{request.path} could not be tried: {request.engine} {reason}")
    return TrialResult(measurement=Measurement(engine=request.engine, failure=reason))
