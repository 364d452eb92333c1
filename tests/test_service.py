"""The whole service under load and under fire: real processes, real images, real signals."""

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import httpx2
import psutil

from tests.event_source import EventSource
from tests.photographs import FOLDER, needs_photographs, read_reference
from tests.service import RunningService, wait_until

CAT = (Path(__file__).parent.parent / "app" / "samples" / "cat.jpg").read_bytes()
TERMINAL = ("completed", "failed")


async def submit(client: httpx2.AsyncClient, image: bytes) -> str:
    answer = await client.post("/classify", files={"file": image})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def follow(client: httpx2.AsyncClient, job_id: str) -> list[dict[str, Any]]:
    """Every status that a client sees until the job has ended."""
    seen = []
    async with asyncio.timeout(120):
        while True:
            seen.append((await client.get(f"/status/{job_id}")).json())
            if seen[-1]["status"] in TERMINAL:
                return seen
            await asyncio.sleep(0.02)


def run_clients(url: str, images: list[bytes], clients: int) -> dict[str, list[dict[str, Any]]]:
    """Post ``images`` with so many clients at once, each following its job to the end."""

    async def run() -> dict[str, list[dict[str, Any]]]:
        histories = {}
        waiting = list(enumerate(images))

        async def work(client: httpx2.AsyncClient) -> None:
            while waiting:
                _, image = waiting.pop(0)
                job_id = await submit(client, image)
                histories[job_id] = await follow(client, job_id)

        async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
            await asyncio.gather(*(work(client) for _ in range(clients)))
        return histories

    return asyncio.run(run())


def find_processes(service: RunningService, words: str) -> list[psutil.Process]:
    """The service's processes whose command line holds ``words``, parents first."""
    children = psutil.Process(service.process.pid).children(recursive=True)
    return [process for process in children if words in " ".join(process.cmdline())]


def test_a_thousand_jobs_from_32_clients_all_complete(service: RunningService) -> None:
    histories = run_clients(service.url, [CAT] * 1000, clients=32)
    assert len(histories) == 1000
    assert Counter(history[-1]["status"] for history in histories.values()) == {"completed": 1000}
    order = ("pending", "processing", "completed")
    for history in histories.values():
        steps = [(order.index(seen["status"]), seen["progress"]) for seen in history]
        assert steps == sorted(steps), "a status went backwards"


def test_every_job_completes_when_a_worker_process_is_killed(service: RunningService) -> None:
    main, *processes = find_processes(service, "worker")
    victim = processes[0]

    async def run() -> list[str]:
        async with httpx2.AsyncClient(base_url=service.url, timeout=60) as client:
            ids = [await submit(client, CAT) for _ in range(100)]
            os.kill(victim.pid, signal.SIGKILL)
            ids += [await submit(client, CAT) for _ in range(100)]
            ends = await asyncio.gather(*(follow(client, job_id) for job_id in ids))
        return [history[-1]["status"] for history in ends]

    assert asyncio.run(run()) == ["completed"] * 200
    assert main.is_running()
    wait_until(lambda: len(find_processes(service, "worker")) == 1 + len(processes))


@needs_photographs
def test_photographs_are_recognised(service: RunningService) -> None:
    """Measured against their labels and against the reference implementation's answers."""
    reference = read_reference()

    async def run() -> list[list[dict[str, Any]]]:
        answers = []
        async with httpx2.AsyncClient(base_url=service.url, timeout=60) as client:
            for image in reference:
                job_id = await submit(client, (FOLDER / image["file"]).read_bytes())
                await follow(client, job_id)
                answers.append((await client.get(f"/result/{job_id}")).json()["predictions"])
        return answers

    answers = asyncio.run(run())
    first = [predictions[0] for predictions in answers]
    right = sum(got["class_name"] == image["label"] for got, image in zip(first, reference))
    pairs = [(got, image["top5"][0]) for got, image in zip(first, reference)]
    same = [
        abs(got["confidence"] - expected["probability"])
        for got, expected in pairs
        if got["class_name"] == expected["label"]
    ]
    assert right >= 88
    assert len(same) >= 95
    assert mean(same) <= 0.02


def test_the_web_process_stays_small_under_large_uploads(service: RunningService) -> None:
    """120 MB is the budget; ten times as many uploads change nothing, see docs/performance.md."""
    (api,) = find_processes(service, "app.cli api")
    image = CAT + bytes(10_485_760 - len(CAT))
    with httpx2.Client(base_url=service.url, timeout=60) as client:
        for _ in range(100):
            assert client.post("/classify", files={"file": image}).status_code == 202
        wait_until(lambda: client.get("/health").json()["queue_length"] == 0, 60)
    assert api.memory_info().rss < 120e6


def test_health_answers_while_redis_hangs(tmp_path: Path) -> None:
    service = RunningService(tmp_path)
    try:
        (redis,) = find_processes(service, "redis")
        redis.suspend()
        answer = httpx2.get(f"{service.url}/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unhealthy")
        assert httpx2.get(f"{service.url}/health/live").status_code == 200
        redis.resume()
        wait_until(lambda: httpx2.get(f"{service.url}/health").json()["status"] == "healthy")
    finally:
        service.stop()


def test_no_accepted_job_is_left_when_redis_is_killed_under_load(tmp_path: Path) -> None:
    """All worker processes are busy then, and the acknowledgement of each doorbell fails."""
    service = RunningService(tmp_path)

    async def run() -> list[str]:
        accepted: list[str] = []
        async with httpx2.AsyncClient(base_url=service.url, timeout=60) as client:

            async def post(count: int) -> None:
                for _ in range(count):
                    answer = await client.post("/classify", files={"file": CAT})
                    assert answer.status_code in (202, 503), answer.text
                    if answer.status_code == 202:
                        accepted.append(answer.json()["job_id"])

            posting = [asyncio.create_task(post(25)) for _ in range(16)]
            while len(accepted) < 150:
                await asyncio.sleep(0.01)
            (redis,) = find_processes(service, "redis")
            redis.kill()
            await asyncio.gather(*posting)

            async def end(job_id: str) -> str:
                async with asyncio.timeout(90):
                    while True:
                        answer = await client.get(f"/status/{job_id}")
                        if answer.status_code == 200 and answer.json()["status"] in TERMINAL:
                            return str(answer.json()["status"])
                        await asyncio.sleep(0.2)

            return await asyncio.gather(*(end(job_id) for job_id in accepted))

    try:
        assert set(asyncio.run(run())) == {"completed"}
    finally:
        service.stop()


def test_a_batch_ends_with_a_line_for_each_image(service: RunningService) -> None:
    images = [("file", (f"{number}.jpg", CAT)) for number in range(40)]
    images.append(("file", ("bad.jpg", CAT[: len(CAT) // 2])))
    with httpx2.Client(base_url=service.url, timeout=60) as client:
        batch = client.post("/batches", files=images).json()
        with EventSource(f"{service.url}/batches/{batch['batch_id']}/events") as stream:
            seen = stream.read_to_end()
        answer = client.get(f"/batches/{batch['batch_id']}/results")
    progress = [percent for _, percent in seen]
    assert progress == sorted(progress) and seen[-1] == ("completed", 100)
    lines = {line["filename"]: line for line in map(json.loads, answer.text.splitlines())}
    assert lines.pop("bad.jpg")["problem"]["code"] == "truncated-image"
    assert {line["status"] for line in lines.values()} == {"completed"}
    assert len(lines) == 40
    assert "cat" in lines["0.jpg"]["predictions"][0]["class_name"]
