"""Uploads that cost a decoder more than they cost to send."""

import io
import random
import statistics
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import psutil

from tests.attacks.attack import Attack, find_processes, measure_cpu_seconds
from tests.image_files import make_png
from tests.inputs import CAT_JPEG
from tests.jpeg_files import PROGRESSIVE, Scan, make_jpeg, render_frame, segment
from tests.service import RunningService

_MOST_CPU_SECONDS, _MOST_MEGABYTES, _MOST_LATENCY_SECONDS = 3.5, 700, 2.0
_ARITHMETIC = 0xCA
_50_MP = (10_000, 5_000)


def _many_scans(coding: int, count: int, size: tuple[int, int] = _50_MP) -> bytes:
    scans = [Scan(), *[Scan(high=1)] * (count - 1)]
    return make_jpeg(render_frame(*size, coding), scans)


def _insert(segments: bytes, position: int = 2) -> bytes:
    return CAT_JPEG[:position] + segments + CAT_JPEG[position:]


def _transparent_png(colour: int, channels: int) -> bytes:
    width, height = _50_MP
    return make_png(width, height, bytes(height * (width * channels + 1)), 8, colour)


# --- Asking the service --------------------------------------------------------------------------


@contextmanager
def _client(service: RunningService) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=service.url, timeout=120) as client:
        yield client


def _classify(client: httpx2.Client, image: bytes) -> str:
    """What becomes of an upload: `completed` or an error's code."""
    answer = client.post("/classify", files={"file": image})
    if answer.status_code != 202:
        return str(answer.json()["code"])
    job_id = answer.json()["job_id"]
    while True:
        answer = client.get(f"/result/{job_id}", headers={"Prefer": "wait=10"})
        if answer.status_code == 200:
            return "completed"
        if answer.status_code != 202:
            return str(answer.json()["code"])


def _measure(service: RunningService, image: bytes) -> tuple[str, float, float]:
    """What becomes of it, and the CPU seconds of the workers and of the API."""
    workers, api = find_processes(service, "worker"), find_processes(service, "api")
    before = measure_cpu_seconds(workers), measure_cpu_seconds(api)
    with _client(service) as client:
        outcome = _classify(client, image)
    return (
        outcome,
        measure_cpu_seconds(workers) - before[0],
        measure_cpu_seconds(api) - before[1],
    )


def _cost(outcomes: str, make: Callable[[], bytes]) -> Callable[[RunningService], str]:
    """An attack by one upload that has to end in one of the outcomes, within the budget."""

    def run(service: RunningService) -> str:
        outcome, worker, api = _measure(service, make())
        text = f"{outcome}; {worker:.1f} CPU s in workers, {api:.2f} in the API"
        assert outcome in outcomes.split(), text
        assert worker <= _MOST_CPU_SECONDS and api <= 0.5, text
        return text

    return run


def _others_meanwhile(make: Callable[[int], bytes], count: int) -> Callable[[RunningService], str]:
    """An attack by several uploads at once, while somebody else sends cats."""

    def run(service: RunningService) -> str:
        images = [make(number) for number in range(count)]
        outcomes: list[str] = []

        def attack(image: bytes) -> None:
            with _client(service) as client:
                outcomes.append(_classify(client, image))

        threads = [threading.Thread(target=attack, args=(image,)) for image in images]
        for thread in threads:
            thread.start()
        latencies = []
        with _client(service) as client:
            while not latencies or any(thread.is_alive() for thread in threads):
                started = time.monotonic()
                assert _classify(client, CAT_JPEG) == "completed"
                latencies.append(time.monotonic() - started)
        text = (
            f"{', '.join(sorted(set(outcomes)))}; {len(latencies)} cats of others took "
            f"{statistics.median(latencies):.2f} s, {max(latencies):.2f} at most"
        )
        assert max(latencies) <= _MOST_LATENCY_SECONDS, text
        return text

    return run


# --- Attacks -------------------------------------------------------------------------------------


def _archive_of_scans(service: RunningService) -> str:
    """A thousand images of a hundred scans each in one request."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(1_000):
            image = _many_scans(PROGRESSIVE, 100, (10_000 - number, 5_000))
            archive.writestr(f"{number}.jpg", image)
    workers = find_processes(service, "worker")
    before = measure_cpu_seconds(workers)
    with _client(service) as client:
        answer = client.post("/batches", files={"archive": file.getvalue()}).json()
        batch: dict[str, Any] = {}
        while batch.get("status", "processing") == "processing":
            path = f"/batches/{answer['batch_id']}"
            batch = client.get(path, headers={"Prefer": "wait=10"}).json()
    used = measure_cpu_seconds(workers) - before
    text = (
        f"{batch['failed']} failed; {len(file.getvalue()) // 1000} KB, {used:.1f} CPU s in workers"
    )
    assert batch["failed"] == 1_000, text
    assert used <= 60, text
    return text


def _memory(make: Callable[[], bytes]) -> Callable[[RunningService], str]:
    """What workers and their decoders take more while an image is decoded."""

    def run(service: RunningService) -> str:
        main = min(find_processes(service, "worker"), key=lambda process: process.create_time())
        image, readings, is_over = make(), [_resident_megabytes(main)], threading.Event()

        def watch() -> None:
            while not is_over.is_set():
                readings.append(_resident_megabytes(main))

        watcher = threading.Thread(target=watch)
        watcher.start()
        outcome, used, _ = _measure(service, image)
        is_over.set()
        watcher.join()
        text = f"{outcome}; +{max(readings) - readings[0]:.0f} MB, {used:.1f} CPU s"
        assert max(readings) - readings[0] <= _MOST_MEGABYTES, text
        return text

    return run


def _resident_megabytes(main: psutil.Process) -> float:
    total = 0
    for process in [main, *main.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / (1 << 20)


def _film_behind() -> bytes:
    """The 8 MB film of a motion photograph, with the mark of a scan wherever it happens to be."""
    film = random.Random(12).randbytes(8_000_000)
    assert film.count(b"\xff\xda") > 100
    return CAT_JPEG + film


_EXIF = segment(0xE1, b"Exif\0\0" + bytes(10))
_TABLES = CAT_JPEG.index(b"\xff\xc4")

ATTACKS = (
    Attack(
        "arithmetic-scans",
        "2 KB upload: arithmetic-coded progressive JPEG, 50 MP, 100 scans",
        "22.6 CPU s of a worker",
        _cost("unsupported-image", lambda: _many_scans(_ARITHMETIC, 100)),
    ),
    Attack(
        "huffman-scans",
        "The same with Huffman coding: 1.5 KB",
        "4 CPU s of a worker",
        _cost("image-too-costly", lambda: _many_scans(PROGRESSIVE, 100)),
    ),
    Attack(
        "allowed-scans",
        "As many scans as are allowed: 50 MP, 20 scans",
        "2 CPU s of a worker",
        _cost("completed image-too-costly", lambda: _many_scans(PROGRESSIVE, 20)),
    ),
    Attack(
        "others-meanwhile",
        "Two costly uploads, and somebody else's cats meanwhile",
        "a cat took 42 s",
        _others_meanwhile(lambda number: _many_scans(PROGRESSIVE, 20, (10_000 - number, 5_000)), 2),
    ),
    Attack(
        "others-meanwhile-crowd",
        "Eight costly uploads, and somebody else's cats meanwhile",
        "a cat took over 60 s",
        _others_meanwhile(lambda number: _many_scans(PROGRESSIVE, 20, (10_000 - number, 5_000)), 8),
    ),
    Attack(
        "archive-of-scans",
        "A zip file of 1,000 JPEGs with 50 MP and 100 scans each",
        "1,000 accepted: 6.3 CPU hours if arithmetic-coded",
        _archive_of_scans,
        {"RESULT_CACHE_ENTRIES": "0"},
    ),
    Attack(
        "exif-pieces",
        "10 MB JPEG with 500,000 pieces of EXIF",
        "21.8 CPU s of a worker",
        _cost("malformed-image", lambda: _insert(_EXIF * 480_000)),
    ),
    Attack(
        "exif-pieces-hidden",
        "The same behind the frame and a stray byte, where the API does not look",
        "21.8 CPU s of a worker",
        _cost("image-too-costly", lambda: _insert(b"a" + _EXIF * 480_000, _TABLES)),
    ),
    Attack(
        "fill-bytes",
        "10 MB of fill bytes before a JPEG's frame",
        "1.2 CPU s of the API's event loop",
        _cost("malformed-image", lambda: _insert(b"\xff" * 10_000_000)),
    ),
    Attack(
        "fill-bytes-hidden",
        "The same behind the frame and a stray byte",
        "2 CPU s of a worker",
        _cost("completed", lambda: _insert(b"a" + b"\xff" * 10_000_000, _TABLES)),
    ),
    Attack(
        "quantisation-tables",
        "10 MB of quantisation tables behind the frame and a stray byte",
        "3 CPU s of a worker",
        _cost(
            "completed image-too-costly",
            lambda: _insert(b"a" + segment(0xDB, (b"\3" + b"\1" * 64) * 1_000) * 150, _TABLES),
        ),
    ),
    Attack(
        "memory-rgba",
        "PNG of 50 MP with colours and transparency, 0.2 MB",
        "+576 MB",
        _memory(lambda: _transparent_png(6, 4)),
    ),
    Attack(
        "memory-la",
        "PNG of 50 MP, gray with transparency, 0.1 MB",
        "+576 MB",
        _memory(lambda: _transparent_png(4, 2)),
    ),
    Attack(
        "memory-coefficients",
        "Progressive JPEG of 50 MP",
        "+312 MB",
        _memory(lambda: _many_scans(PROGRESSIVE, 10)),
    ),
    Attack(
        "motion-photograph",
        "A good JPEG with a film of 8 MB behind it",
        "refused as undecodable-image",
        _cost("completed", _film_behind),
    ),
)
