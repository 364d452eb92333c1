"""TERM: what is under way is finished or handed back, and an open request gets its answer."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from app.core import keys
from app.jobs.job import Job
from tests.event_source import EventSource
from tests.faults.cluster import Cluster
from tests.faults.trapped_worker import Trap
from tests.service import wait_until

CAT = (Path(__file__).parent.parent / "app" / "samples" / "cat.jpg").read_bytes()
GRACE_SECONDS = 1
EXIT_SECONDS = 10  # the grace, what follows it, and a machine that does much else


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    environment = {"WORKER_GRACE_SECONDS": str(GRACE_SECONDS)}
    with Cluster(tmp_path, environment, worker_module="tests.faults.trapped_worker") as cluster:
        cluster.start_redis()
        cluster.start_api()
        cluster.start_worker()
        cluster.wait_ready()
        yield cluster


def submit(cluster: Cluster, *images: bytes) -> list[str]:
    with httpx2.Client(base_url=cluster.url) as client:
        answers = [client.post("/classify", files={"file": image}) for image in images]
    return [answer.json()["job_id"] for answer in answers]


def read(cluster: Cluster, job_id: str) -> Job:
    return Job.from_record(job_id, cluster.redis.hgetall(keys.job(job_id)))


@pytest.mark.parametrize("trap", [Trap.SLEEPING, Trap.HANGING])
def test_a_worker_hands_back_what_it_can_not_finish(cluster: Cluster, trap: Trap) -> None:
    """Even when the process that classifies listens to nothing; and the jobs have lost nothing."""
    (worker,) = cluster.workers
    stuck, *others = submit(cluster, trap.render(), CAT, CAT)
    wait_until(lambda: read(cluster, stuck).state == "processing")
    worker.send(signal.SIGTERM)
    assert worker.wait(EXIT_SECONDS) == 0
    job = read(cluster, stuck)
    assert (job.state, [note["reason"] for note in job.trail]) == ("pending", ["handed_back"])
    assert cluster.redis.hget(keys.job(stuck), "losses") is None
    assert cluster.redis.zcard(keys.LEASES) == 0
    states = {read(cluster, job_id).state for job_id in others}
    assert states <= {"pending", "completed"}


def test_a_worker_finishes_what_is_under_way(cluster: Cluster) -> None:
    (worker,) = cluster.workers
    ids = submit(cluster, *[CAT] * 40)
    worker.send(signal.SIGTERM)
    assert worker.wait(EXIT_SECONDS) == 0
    jobs = [read(cluster, job_id) for job_id in ids]
    assert {job.state for job in jobs} <= {"pending", "completed"}
    assert all(not job.trail for job in jobs), "a healthy batch was cut short"
    cluster.start_worker()
    wait_until(lambda: all(read(cluster, job_id).state == "completed" for job_id in ids))


def test_the_api_answers_open_requests_before_it_ends(cluster: Cluster) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="cat.jpg"\r\n\r\n'
    body += CAT + b"\r\n--b--\r\n"
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    head += b"Expect: 100-continue\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    assert cluster.api is not None
    with socket.create_connection(("127.0.0.1", cluster.port)) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body[:1000])
        cluster.api.send(signal.SIGTERM)
        wait_until(lambda: _refuses(cluster.port))
        connection.sendall(body[1000:])
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 202 ")
    # uvicorn ends in good order and then by the signal that it got.
    assert cluster.api.wait(EXIT_SECONDS) in (0, -signal.SIGTERM)
    job_id = json.loads(answer.partition(b"\r\n\r\n")[2])["job_id"]
    wait_until(lambda: read(cluster, job_id).state == "completed")


def test_no_stream_holds_the_api_up(cluster: Cluster) -> None:
    """Listeners come back to another process; who waits for an answer has it at once."""
    assert cluster.api is not None
    for worker in cluster.workers:
        worker.end()
    (job_id,) = submit(cluster, CAT)
    with ThreadPoolExecutor() as threads:
        url, prefer = f"{cluster.url}/result/{job_id}", {"Prefer": "wait=60"}
        answer = threads.submit(httpx2.get, url, headers=prefer, timeout=EXIT_SECONDS)
        wait_until(lambda: b"!" in (cluster.redis.hget(keys.job(job_id), "watchers") or b""))
        with EventSource(f"{cluster.url}/status/{job_id}/events") as stream:
            assert stream.read_status() == ("pending", 0)
            cluster.api.send(signal.SIGTERM)
            assert stream.read_event() == {}
        assert (answer.result().status_code, answer.result().json()["status"]) == (202, "pending")
    assert cluster.api.wait(EXIT_SECONDS) in (0, -signal.SIGTERM)
    assert "graceful shutdown exceeded" not in cluster.api.log.read_text()


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return False
    except ConnectionRefusedError:
        return True
