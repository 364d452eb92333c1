"""The physical limit: as many processes as workers that read, decode, resize and infer in a loop.

``python -m benchmarks.bare_loop LOOP ENGINE MODEL_FOLDER SECONDS IMAGE...`` is one of them. It
says when it is ready, starts at a line on its standard input, and prints what it did as JSON.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bystanders import Bystanders
from benchmarks.models import BenchmarkModel
from benchmarks.peers.model_function import create_engine_classifier
from benchmarks.processes import die_with_benchmark, read_line
from benchmarks.workspace import WORKERS, clean_environment

SERVICE = "service"
"""The service's decoding and engine, with as many images at once as the engine takes."""
SINGLE = "single"
"""The same, image by image."""
PILLOW = "pillow"
"""Image by image, decoded with Pillow alone, as the service did it before and as peers do."""

Step = Callable[[list[bytes]], object]
"""Classifies the files of one step."""

_WARM_UP_ROUNDS = 10


def run_bare_loops(
    loop: str,
    model: BenchmarkModel,
    images: Sequence[Path],
    seconds: float,
    loops: int = WORKERS,
) -> dict[str, float]:
    """Run the loops side by side; images per second together, milliseconds an image in each."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", loop, model.engine]
    command += [str(model.folder), str(seconds), *(str(image) for image in images)]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
            preexec_fn=die_with_benchmark,
        )
        for _ in range(loops)
    ]
    try:
        reports, others = _drive(processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    images_done = sum(report["images"] for report in reports)
    return {
        "rate": sum(report["images"] / report["seconds"] for report in reports),
        "cpu_ms": sum(report["cpu_seconds"] for report in reports) * 1000 / images_done,
        "wall_ms": sum(report["seconds"] for report in reports) * 1000 / images_done,
        "others_cores": others,
    }


def _drive(
    processes: "Sequence[subprocess.Popen[str]]",
) -> tuple[list[dict[str, float]], float]:
    """Start all at once; what each reports, and the cores that others took meanwhile."""
    for process in processes:
        assert process.stdout is not None
        read_line(process.stdout)
    bystanders = Bystanders()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    reports = []
    for process in processes:
        assert process.stdout is not None
        reports.append(json.loads(read_line(process.stdout)))
    return reports, bystanders.cores(sum(report["cpu_seconds"] for report in reports))


def create_step(loop: str, engine: str, folder: Path) -> tuple[Step, int]:
    """What a loop does again and again, and with how many files."""
    if loop == SERVICE:
        return _create_service_step(engine)
    if loop == SINGLE:
        classify = create_engine_classifier(engine, folder)
    else:
        from benchmarks.pillow_decoding import create_pillow_classifier

        classify = create_pillow_classifier(engine, folder)
    return lambda files: [classify(file) for file in files], 1


def _create_service_step(engine: str) -> tuple[Step, int]:
    from app.core.config import EngineName, load_settings
    from app.inference.images import decode
    from app.models.ml_models import load_model, prepare_model

    settings = load_settings().model_copy(update={"engine": EngineName(engine)})
    model = load_model(prepare_model(settings), settings)

    def step(files: list[bytes]) -> object:
        return model.classify([decode(file, model.manifest, settings.limits) for file in files])

    return step, model.engine.portion


def main() -> None:
    """One loop."""
    loop, engine, folder, seconds, *paths = sys.argv[1:]
    step, size = create_step(loop, engine, Path(folder))
    images = itertools.cycle(paths)
    for _ in range(_WARM_UP_ROUNDS):
        step(_read(images, size))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(_loop(step, images, size, float(seconds))), flush=True)


def _read(images: Iterator[str], count: int) -> list[bytes]:
    return [Path(path).read_bytes() for path in itertools.islice(images, count)]


def _loop(step: Step, images: Iterator[str], size: int, seconds: float) -> dict[str, Any]:
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        step(_read(images, size))
        count += size
    return {
        "images": count,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


if __name__ == "__main__":
    main()
