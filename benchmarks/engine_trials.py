"""What was tried inside a worker process, kept or not: threads, overlap, pinning, hints, decoders.

``python -m benchmarks.engine_trials`` takes about four minutes and writes
``benchmarks/results/engine_trials.json``. Every variant keeps both cores busy, variants of one
question take turns, and each round counts images for two seconds.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.progress import track

from app.core.config import EngineName, Settings, get_settings
from app.inference.engines.artifacts import graph_path
from app.inference.images import decode
from app.models.ml_models import LoadedModel, load_model, prepare_model
from benchmarks.images import make_images
from benchmarks.results import write_results
from benchmarks.workspace import RESULTS

ROUNDS = 5
SECONDS = 2.0
CORES = 2
# As many as a worker claims at once.
BATCH = 8

Step = Callable[[], int]
"""Does some work and says how many images that was."""


@dataclass(frozen=True)
class Variant:
    """One answer to a question; ``create`` gives the steps that run at once in a process."""

    what: str
    name: str
    create: Callable[[bytes], list[Step]]
    processes: int = CORES
    pinned: bool = False
    needs: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A result: the median of the rounds, in images a second of all processes together."""

    what: str
    variant: str
    value: float
    unit: str
    rounds: list[float]
    note: str


# --- What is done --------------------------------------------------------------------------------


def load(engine: EngineName = EngineName.AUTO) -> tuple[LoadedModel, Settings]:
    """A model as a worker process has it."""
    settings = get_settings().model_copy(update={"engine": engine})
    return load_model(prepare_model(settings), settings), settings


def one_after_the_other(image: bytes) -> Step:
    """Decode a batch, then classify it."""
    model, settings = load()

    def step() -> int:
        squares = [decode(image, model.manifest, settings.limits) for _ in range(BATCH)]
        return len(model.classify(squares))

    return step


def overlapped(image: bytes) -> Step:
    """Decode the next batch in a thread while this one is classified."""
    model, settings = load()
    thread = ThreadPoolExecutor(1)

    def decode_batch() -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        return [decode(image, model.manifest, settings.limits) for _ in range(BATCH)]

    following = thread.submit(decode_batch)

    def step() -> int:
        nonlocal following
        squares, following = following.result(), thread.submit(decode_batch)
        return len(model.classify(squares))

    return step


def onnx_runtime(level: str) -> Callable[[bytes], list[Step]]:
    """ONNX Runtime with a level of graph optimisation, without decoding."""

    def create(_: bytes) -> list[Step]:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        prepared = prepare_model(get_settings())
        session = onnxruntime.InferenceSession(str(graph_path(prepared.folder)), options)
        size = prepared.manifest.input_size
        pixels = {session.get_inputs()[0].name: np.zeros((1, size, size, 3), np.uint8)}
        return [lambda: len(session.run(None, pixels)[0])]

    return create


def openvino(hint: str) -> Callable[[bytes], list[Step]]:
    """OpenVINO with a hint, in the precision that it chooses itself, without decoding."""

    def create(_: bytes) -> list[Step]:
        import openvino as runtime  # type: ignore[import-untyped]

        prepared = prepare_model(get_settings())
        settings = {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": 1}
        model = runtime.Core().compile_model(
            str(graph_path(prepared.folder)), "CPU", {**settings, "ENABLE_CPU_PINNING": False}
        )
        request, size = model.create_infer_request(), prepared.manifest.input_size
        pixels = np.zeros((1, size, size, 3), np.uint8)
        return [lambda: len(request.infer({0: pixels}, share_inputs=True)[0])]

    return create


def decode_with_simplejpeg(image: bytes) -> list[Step]:
    """All pixels as an array."""
    import simplejpeg

    return [lambda: simplejpeg.decode_jpeg(image).ndim // 3]


def decode_with_pillow(image: bytes) -> list[Step]:
    """All pixels as an array."""
    from PIL import Image

    return [lambda: np.asarray(Image.open(io.BytesIO(image))).ndim // 3]


def decode_with_opencv(image: bytes) -> list[Step]:
    """All pixels as an array."""
    import cv2  # type: ignore[import-not-found, unused-ignore]

    cv2.setNumThreads(1)
    data = np.frombuffer(image, np.uint8)
    return [lambda: np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)).ndim // 3]


def decode_and_resize(image: bytes) -> list[Step]:
    """As a worker does."""
    settings = get_settings()
    manifest = prepare_model(settings).manifest
    return [lambda: decode(image, manifest, settings.limits).ndim // 3]


VARIANTS = (
    Variant("two cores", "two processes", lambda image: [one_after_the_other(image)]),
    Variant(
        "two cores",
        "one process, two threads",
        lambda image: [one_after_the_other(image) for _ in range(CORES)],
        processes=1,
        note="each thread has its own loaded model",
    ),
    Variant("decoding", "before inference", lambda image: [one_after_the_other(image)]),
    Variant("decoding", "in a thread beside inference", lambda image: [overlapped(image)]),
    Variant("cores", "any", lambda image: [one_after_the_other(image)]),
    Variant("cores", "one each", lambda image: [one_after_the_other(image)], pinned=True),
    *(
        Variant("ONNX Runtime graph optimisation", level.removeprefix("ORT_"), onnx_runtime(level))
        for level in (
            *("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC"),
            *("ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"),
        )
    ),
    Variant("OpenVINO hint", "LATENCY", openvino("LATENCY")),
    Variant("OpenVINO hint", "THROUGHPUT", openvino("THROUGHPUT")),
    Variant("JPEG decoder", "simplejpeg", decode_with_simplejpeg, note="libjpeg-turbo"),
    Variant("JPEG decoder", "Pillow", decode_with_pillow, note="libjpeg-turbo and two copies"),
    Variant("JPEG decoder", "OpenCV", decode_with_opencv, needs="cv2"),
    Variant("JPEG decoder", "decode and resize, as kept", decode_and_resize),
)


# --- How it is measured --------------------------------------------------------------------------


def count(step: Step, counts: list[int]) -> None:
    """Repeat a step until the time is over."""
    end, total = time.perf_counter() + SECONDS, 0
    while time.perf_counter() < end:
        total += step()
    counts.append(total)


def serve_rounds(variant: Variant, image: bytes, core: int) -> None:
    """A child process: a round for each line that is sent."""
    if variant.pinned:
        os.sched_setaffinity(0, {core})
    steps = variant.create(image)
    for step in steps:
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        counts: list[int] = []
        threads = [threading.Thread(target=count, args=(step, counts)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(sum(counts), flush=True)


def start(index: int, image: Path) -> list["subprocess.Popen[str]"]:
    """The processes of a variant, ready."""
    command = [sys.executable, "-m", "benchmarks.engine_trials", "--image", str(image)]
    children = [
        subprocess.Popen(
            [*command, "--variant", str(index), "--core", str(core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for core in range(VARIANTS[index].processes)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return children


def measure_round(children: list["subprocess.Popen[str]"]) -> float:
    """Images a second of all the processes together."""
    for child in children:
        assert child.stdin is not None
        print(file=child.stdin, flush=True)
    counts = [int(child.stdout.readline()) for child in children if child.stdout]
    return sum(counts) / SECONDS


def answer(what: str, image: Path) -> list[Row]:
    """Measure the variants of a question in turns."""
    chosen = [
        index
        for index, variant in enumerate(VARIANTS)
        if variant.what == what and (variant.needs is None or find_spec(variant.needs))
    ]
    children = {index: start(index, image) for index in chosen}
    rounds: dict[int, list[float]] = {index: [] for index in chosen}
    for _ in range(ROUNDS):
        for index in chosen:
            rounds[index].append(round(measure_round(children[index]), 1))
    for child in (child for group in children.values() for child in group):
        child.communicate()
    return [
        Row(
            what,
            VARIANTS[index].name,
            statistics.median(values),
            "images/s",
            values,
            VARIANTS[index].note,
        )
        for index, values in rounds.items()
    ]


def main() -> None:
    """Measure everything, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--variant", "--core"):
        parser.add_argument(option, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help="a JPEG; default: 500 × 375 pixels, 108 KB")
    arguments = parser.parse_args()
    if arguments.variant is not None:
        image = arguments.image.read_bytes()
        serve_rounds(VARIANTS[arguments.variant], image, arguments.core)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.image or make_images(Path(folder))[0]
        prepare_model(get_settings())
        questions = list(dict.fromkeys(variant.what for variant in VARIANTS))
        rows = [row for what in track(questions) for row in answer(what, path)]
    write_results(RESULTS, "engine_trials", [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
