"""The physical limit: as many processes as workers that read, decode, resize and infer in a loop.

``python -m benchmarks.bare_loop DECODER ENGINE MODEL_FOLDER SECONDS IMAGE...`` is one of them. It
says when it is ready, starts at a line on its standard input, and prints what it did as JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bystanders import Bystanders
from benchmarks.models import BenchmarkModel
from benchmarks.peers.model_function import Classify, create_engine_classifier
from benchmarks.processes import die_with_benchmark, read_line
from benchmarks.workspace import WORKERS, clean_environment

SERVICE = "service"
"""Decoding as the service does it."""
PILLOW = "pillow"
"""Decoding with Pillow alone, as the service did it before it used OpenCV, and as peers do."""

_WARM_UP_ROUNDS = 10


def run_bare_loops(
    decoder: str,
    model: BenchmarkModel,
    images: Sequence[Path],
    seconds: float,
    loops: int = WORKERS,
) -> dict[str, float]:
    """Run the loops side by side; images per second together, milliseconds an image in each."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", decoder, model.engine]
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


def create_loop_classifier(decoder: str, engine: str, folder: Path) -> Classify:
    """The function that a loop calls for each image."""
    if decoder == SERVICE:
        return create_engine_classifier(engine, folder)
    from benchmarks.pillow_decoding import create_pillow_classifier

    return create_pillow_classifier(engine, folder)


def main() -> None:
    """One loop."""
    decoder, engine, folder, seconds, *paths = sys.argv[1:]
    classify, images = create_loop_classifier(decoder, engine, Path(folder)), paths
    for number in range(_WARM_UP_ROUNDS):
        classify(Path(images[number % len(images)]).read_bytes())
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(_loop(classify, images, float(seconds))), flush=True)


def _loop(classify: Classify, images: Sequence[str], seconds: float) -> dict[str, Any]:
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        with open(images[count % len(images)], "rb") as file:
            classify(file.read())
        count += 1
    return {
        "images": count,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
    }


if __name__ == "__main__":
    main()
