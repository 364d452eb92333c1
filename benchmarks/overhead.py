"""What the service costs beyond decoding and inference, in CPU time per job.

``python -m benchmarks.overhead`` starts `classifier up` on this machine and sends it images from 16
clients: each posts one with ``Prefer: wait``, gets the result, and goes on. The CPU time of every
process comes from the operating system; what two plain loops at once need for the same image
is taken off. Prints a table in Markdown.
"""

import argparse
import asyncio
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from rich.progress import track

CLIENTS = 16
WORKERS = 2
WARM_UP_JOBS = 200
JPEG_BYTES = 108 * 1024

GROUPS = ("API", "Redis", "worker's main process", "worker's children", "supervisor")


def make_image(folder: Path) -> Path:
    """A 500 × 375 JPEG of about 108 KB: the sample, with grain until the size is right."""
    sample = Path(__file__).parent.parent / "app" / "samples" / "cat.jpg"
    pixels = np.asarray(Image.open(sample).convert("RGB").resize((500, 375)), dtype=np.int16)
    grain = np.random.default_rng(0).normal(size=pixels.shape)
    data = b""
    for strength in range(0, 60, 2):
        noisy = np.clip(pixels + grain * strength, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=92)
        data = file.getvalue()
        if len(data) >= JPEG_BYTES:
            break
    path = folder / "image.jpg"
    path.write_bytes(data)
    return path


def start_service(folder: Path, port: int) -> subprocess.Popen[str]:
    """`classifier up`, ready."""
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port)]
    command += ["--workers", str(WORKERS), "--data-dir", str(folder)]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert service.stdout is not None
    for line in service.stdout:
        if "ready after" in line:
            return service
    raise SystemExit("the service did not start")


def find_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def group_processes(service_pid: int) -> dict[str, list[psutil.Process]]:
    """The service's processes by what they do."""
    groups: dict[str, list[psutil.Process]] = {name: [] for name in GROUPS}
    supervisor = psutil.Process(service_pid)
    groups["supervisor"].append(supervisor)
    for child in supervisor.children():
        command = " ".join(child.cmdline())
        if "redis" in command and "celery" not in command and "app.cli" not in command:
            groups["Redis"].append(child)
        elif command.endswith(" api"):
            groups["API"].append(child)
        else:
            groups["worker's main process"].append(child)
            groups["worker's children"] += child.children(recursive=True)
    return groups


def read_cpu_seconds(groups: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """User and system time so far, by group."""
    return {
        name: sum(sum(process.cpu_times()[:2]) for process in processes)
        for name, processes in groups.items()
    }


class Client:
    """One connection that costs next to nothing: the cores are the service's.

    Requests are made beforehand and written at once; of answers it reads status and body.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> "Client":
        """A connection to the API on this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Send a request; gives the answer's status, its head in lower case, and its body."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head[9:12]), head, await self._reader.readexactly(length)


def make_upload(image: bytes, *headers: bytes) -> bytes:
    """The whole request that posts an image."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="image.jpg"\r\n\r\n'
    body += image + b"\r\n--b--\r\n"
    length = b"Content-Length: %d" % len(body)
    kind = b"Content-Type: multipart/form-data; boundary=b"
    lines = [b"POST /classify HTTP/1.1", b"Host: localhost", kind, length, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def run_clients(port: int, image: bytes, jobs: int) -> None:
    """16 clients, each posting an image and getting its result."""
    waiting, upload = iter(range(jobs)), make_upload(image, b"Prefer: wait=30")

    async def work() -> None:
        client = await Client.connect(port)
        for _ in waiting:
            status, _, answer = await client.ask(upload)
            assert status == 200, answer

    await asyncio.gather(*(work() for _ in range(CLIENTS)))


def measure_bare_loop(image: Path, rounds: int) -> float:
    """CPU milliseconds an image in as many plain loops at once as there are workers."""
    command = [sys.executable, "-m", "benchmarks.bare_loop", str(image), str(rounds)]
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
    return statistics.mean(float(loop.communicate()[0]) for loop in loops)


def measure_round(
    port: int, image: Path, groups: dict[str, list[psutil.Process]], jobs: int
) -> dict[str, float]:
    """One round: CPU milliseconds a job by group, and the bare loop's beside them."""
    before, started = read_cpu_seconds(groups), time.perf_counter()
    asyncio.run(run_clients(port, image.read_bytes(), jobs))
    seconds, after = time.perf_counter() - started, read_cpu_seconds(groups)
    row = {name: (after[name] - before[name]) * 1000 / jobs for name in groups}
    bare = measure_bare_loop(image, jobs // (2 * WORKERS))
    everything = sum(row.values())
    row["**API + Redis + worker's main process**"] = sum(row[name] for name in GROUPS[:3])
    row["**everything but the plain loop**"] = everything - bare
    row["plain loop"] = bare
    row["jobs/s"] = jobs / seconds
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("MODEL_CACHE_DIR", str(folder / "cache"))
        image = make_image(folder)
        port = find_port()
        service = start_service(folder / "data", port)
        try:
            # Its log goes on; nobody reads it, so let nothing wait for that.
            drain = subprocess.Popen(["cat"], stdin=service.stdout, stdout=subprocess.DEVNULL)
            groups = group_processes(service.pid)
            asyncio.run(run_clients(port, image.read_bytes(), WARM_UP_JOBS))
            rows = [
                measure_round(port, image, groups, options.jobs)
                for _ in track(range(options.rounds), "measuring")
            ]
        finally:
            service.terminate()
            service.wait()
        drain.wait()
    print("| CPU, ms per job | median | least | most |\n|---|---|---|---|")
    for key in rows[0]:
        values = [row[key] for row in rows]
        middle = statistics.median(values)
        print(f"| {key} | {middle:.2f} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
