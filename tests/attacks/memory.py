"""Filling Redis: records of repeated images and of refused ones, keys, until nothing has room.

``python -m tests.attacks.memory --seconds 600`` floods for ten minutes and writes Redis's memory
over time.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import redis
from httpx2 import AsyncClient

from tests.api_client import SAMPLE
from tests.attacks.attack import Attack
from tests.attacks.flood import Replies, create_form, create_upload, flood
from tests.service import RunningService

# Small enough to be full soon; results leave while the flood goes on.
MAX_MEMORY = 32 << 20
RESULT_SECONDS = 60
ENVIRONMENT = {
    "REDIS_MAX_MEMORY": str(MAX_MEMORY),
    "RESULT_TTL": str(RESULT_SECONDS),
    "RESULT_CACHE_ENTRIES": "1000",
}
SHORT_SECONDS = 90.0

_LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Watch:
    """What somebody else sees meanwhile. Times in seconds, memory in bytes."""

    memory: list[tuple[float, int]] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def peak(self) -> int:
        """The most that Redis's data took."""
        return max(used for _, used in self.memory)


async def _watch(service: RunningService, watch: Watch) -> None:
    """Every half second: Redis's memory, a read of a finished job, an upload of another image."""
    started = time.monotonic()
    with redis.Redis(unix_socket_path=str(service.data_dir / "redis.sock")) as direct:
        async with AsyncClient(base_url=service.url, timeout=30) as client:
            for number in range(1_000_000):
                used = direct.info("memory")["used_memory"]
                watch.memory.append((time.monotonic() - started, used))
                await _upload(client, watch, number)
                await asyncio.sleep(_LOOK_SECONDS)


async def _upload(client: AsyncClient, watch: Watch, number: int) -> None:
    # Bytes behind the image's end make it another one.
    image = SAMPLE.read_bytes() + f"{number:08}".encode()
    began = time.monotonic()
    reply = await client.post("/classify", files={"file": image}, headers={"Prefer": "wait=10"})
    if reply.status_code == 429:
        watch.refused += 1
        return
    assert reply.status_code == 200, f"another client's upload: {reply.status_code} {reply.text}"
    watch.ends.append(time.monotonic() - began)
    began = time.monotonic()
    read = await client.get(f"/result/{reply.json()['job_id']}")
    watch.reads.append(time.monotonic() - began)
    assert read.status_code == 200, f"another client's result: {read.status_code} {read.text}"


async def attack(
    service: RunningService, create_request: Callable[[], bytes], seconds: float
) -> tuple[Replies, Watch]:
    """Flood the service, and look at it as somebody else does."""
    replies, watch = Replies(), Watch()
    async with AsyncClient(base_url=service.url, timeout=30) as client:
        await client.post(
            "/classify?top_k=100",
            files={"file": SAMPLE.read_bytes()},
            headers={"Prefer": "wait=10"},
        )
    watching = asyncio.create_task(_watch(service, watch))
    await flood(service.port, create_request, seconds, replies)
    if watching.done():
        print(*service.lines[-30:], sep="\n")
        watching.result()
    watching.cancel()
    return replies, watch


def repeat_image() -> Callable[[], bytes]:
    """Uploads that the cache answers, each with a hundred classes."""
    body = create_form([("file", SAMPLE.read_bytes())])
    return create_upload("/classify?top_k=100", body)


def send_empty_images() -> Callable[[], bytes]:
    """Batches of a thousand images that are refused on their way in."""
    return create_upload("/batches", create_form([("file", b"")] * 1000))


def judge(seconds: float, replies: Replies, watch: Watch) -> str:
    """The bounds, and in one line what happened."""
    statuses = replies.statuses
    assert watch.peak < MAX_MEMORY, f"Redis took {watch.peak >> 20} MB"
    assert set(statuses) <= {202, 429}, f"the flood was told {dict(statuses)}"
    assert statuses[429], "the flood never met the limit"
    assert max(watch.ends) < 1, f"another client's job took {max(watch.ends):.1f} s"
    assert max(watch.reads) < 1, f"another client's read took {max(watch.reads):.1f} s"
    first = replies.waits_seconds[0]
    assert 1 <= first <= RESULT_SECONDS, f"Retry-After: {first}"
    return (
        f"{seconds:.0f} s: {statuses[202]:,} accepted, {statuses[429]:,} × 429 (first "
        f"`Retry-After`: {first}), no 503; Redis at most {watch.peak / (1 << 20):.0f} of "
        f"{MAX_MEMORY >> 20} MB; another client's {len(watch.ends)} images answered in "
        f"{median(watch.ends) * 1000:.0f} ms (most {max(watch.ends) * 1000:.0f}), reads "
        f"{median(watch.reads) * 1000:.1f} ms (most {max(watch.reads) * 1000:.0f})"
    )


def _run(
    create: Callable[[], Callable[[], bytes]],
    service: RunningService,
    seconds: float = SHORT_SECONDS,
) -> str:
    return judge(seconds, *asyncio.run(attack(service, create(), seconds)))


ATTACKS = (
    Attack(
        "repeated-images",
        "One client repeats an image at full speed (answers of 7 KB)",
        "+12.3 MB/s; at the limit 503 for everybody for up to an hour",
        partial(_run, repeat_image),
        ENVIRONMENT,
    ),
    Attack(
        "refused-batches",
        "One client sends batches of 1,000 empty images",
        "5,039 jobs/s, +4.9 MB/s, no limit; lists outgrow the sweeper",
        partial(_run, send_empty_images),
        ENVIRONMENT,
    ),
)


def main() -> None:
    """Flood for as long as the command line says, and print Redis's memory over time."""
    parser = argparse.ArgumentParser("python -m tests.attacks.memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=float, default=30, help="seconds between printed lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        service = RunningService(Path(folder) / "data", **ENVIRONMENT)
        try:
            replies, watch = asyncio.run(attack(service, repeat_image(), arguments.seconds))
        finally:
            service.stop()
    print("| seconds | Redis, MB |\n|---|---|")
    due = 0.0
    for moment, used in watch.memory:
        if moment >= due:
            print(f"| {moment:.0f} | {used / (1 << 20):.1f} |")
            due += arguments.every
    print(judge(arguments.seconds, replies, watch))


if __name__ == "__main__":
    main()
