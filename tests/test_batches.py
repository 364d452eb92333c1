"""Batches over HTTP: many images in one request, followed and read as one. No worker runs here."""

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any

import httpx2
import pytest

from app.core import keys
from app.core.config import LimitSettings, QueueSettings, Settings
from app.jobs.job import Answer, Outcome
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import assert_problem, png_head, submit
from tests.api_server import run_api
from tests.batch_desk import IMAGE, BatchDesk
from tests.jpeg_files import Scan, make_jpeg, render_frame
from tests.ledger.ledger_under_test import memory_limit_reached
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS

UNKNOWN = "/batches/5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11"


# --- POST /batches --------------------------------------------------------------------------------


def test_a_batch_is_accepted_with_a_job_for_each_image(desk: BatchDesk) -> None:
    response = desk.post([IMAGE] * 3, ["a", "b", "c"])
    document = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/batches/{document['batch_id']}"
    assert (document["status"], document["total"]) == ("processing", 3)
    named = [(job["filename"], job["custom_id"]) for job in document["jobs"]]
    assert named == [("0.jpg", "a"), ("1.jpg", "b"), ("2.jpg", "c")]
    job_ids = [job["job_id"] for job in document["jobs"]]
    assert desk.uploads() == set(job_ids)
    for job_id in job_ids:
        assert desk.client.get(f"/status/{job_id}").json()["status"] == "pending"
        assert (payload_folder(desk.settings) / job_id).read_bytes() == IMAGE


def test_its_jobs_wait_as_bulk_and_ring(desk: BatchDesk) -> None:
    desk.submit([IMAGE] * 20)
    assert (desk.redis.llen(keys.BULK_QUEUE), desk.redis.llen(keys.QUEUE)) == (20, 0)
    assert desk.redis.llen(keys.DOORBELLS) == 3


def test_without_custom_ids_there_are_none(desk: BatchDesk) -> None:
    assert desk.submit()["jobs"][0]["custom_id"] is None


def test_an_image_that_is_refused_does_not_refuse_the_others(desk: BatchDesk) -> None:
    arithmetic = make_jpeg(render_frame(10, 10, 0xC9), [Scan()])
    bad = [b"just text", arithmetic, b"", png_head(0, 10), png_head(16_385, 1)]
    images = [IMAGE, *bad, IMAGE]
    batch = desk.submit(images)
    first, *refused, last = [job["job_id"] for job in batch["jobs"]]
    codes = ["unsupported-image"] * 2 + ["empty-file", "malformed-image", "image-too-large"]
    for job_id, status, code in zip(refused, (415, 422, 422, 422, 413), codes, strict=True):
        assert desk.client.get(f"/status/{job_id}").json()["status"] == "failed"
        document = assert_problem(desk.client.get(f"/result/{job_id}"), status, code)
        assert document["job_id"] == job_id
    assert desk.uploads() == {first, last}
    document = desk.get(batch)
    assert (document["failed"], document["pending"], document["progress"]) == (5, 2, 71)
    problems = [line["problem"] for line in desk.read_lines(batch)]
    assert [problem["code"] for problem in problems] == codes
    for data, problem in zip(bad[:2], problems, strict=False):
        alone = submit(desk.client, data).json()
        for member in ("type", "title", "status", "detail"):
            assert problem[member] == alone[member]


def test_an_image_that_is_too_large_is_told_as_usual(settings: Settings) -> None:
    limits = LimitSettings(file_size=len(IMAGE) + 10)
    with run_api(create_app(settings.model_copy(update={"limits": limits}))) as url:
        desk = BatchDesk(url, settings)
        large = IMAGE + bytes(11)
        good, bad = [job["job_id"] for job in desk.submit([IMAGE, large])["jobs"]]
        assert desk.uploads() == {good}
        alone = submit(desk.client, large).json()
    document = httpx_problem(desk, bad)
    assert (document["code"], document["detail"]) == (alone["code"], alone["detail"])


def httpx_problem(desk: BatchDesk, job_id: str) -> dict[str, Any]:
    """What a failed job's record says."""
    document: dict[str, Any] = json.loads(desk.redis.hget(keys.job(job_id), "error"))
    return document


def test_a_batch_of_nothing_but_refused_images_has_ended(desk: BatchDesk) -> None:
    batch = desk.submit([b"text", b"more text"])
    document = desk.get(batch)
    assert (document["status"], document["failed"], document["progress"]) == ("completed", 2, 100)
    assert desk.redis.ttl(keys.batch(batch["batch_id"])) > 0


@pytest.mark.parametrize(
    ("custom_ids", "words"),
    [
        (["a", "a"], "'a' is there 2 times"),
        (["a"], "1 fields custom_id for 2 images"),
        (["a", "b", "c"], "3 fields custom_id for 2 images"),
        (["a", ""], "1 to 128 characters"),
        (["a", "b" * 129], "1 to 128 characters"),
    ],
)
def test_custom_ids_that_are_not_one_for_each_are_refused(
    desk: BatchDesk, custom_ids: list[str], words: str
) -> None:
    document = assert_problem(desk.post([IMAGE] * 2, custom_ids), 422, "invalid-request")
    assert words in document["detail"]
    desk.assert_nothing_was_accepted()


def test_a_request_without_images_is_refused(desk: BatchDesk) -> None:
    response = desk.client.post("/batches", files={"other": b"x"})
    document = assert_problem(response, 422, "missing-file")
    assert document["detail"] == documented_problem(desk, 422, "missing-file")["detail"]
    assert_problem(desk.client.post("/batches", content=b"x"), 415, "not-multipart")


def documented_problem(desk: BatchDesk, status: int, code: str) -> dict[str, Any]:
    """The example of POST /batches in the contract."""
    operation = desk.client.get("/openapi.json").json()["paths"]["/batches"]["post"]
    (content,) = operation["responses"][str(status)]["content"].values()
    document: dict[str, Any] = content["examples"][code]["value"]
    return document


def test_a_batch_of_more_bytes_than_may_wait_is_told_how_many(settings: Settings) -> None:
    limits, queue = LimitSettings(file_size=50_000), QueueSettings(max_bytes=100_000)
    update = {"limits": limits, "queue": queue}
    with run_api(create_app(settings.model_copy(update=update))) as url:
        connection = HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.putrequest("POST", "/batches")
        connection.putheader("Content-Type", "multipart/form-data; boundary=x")
        connection.putheader("Content-Length", "10000000")
        connection.endheaders()
        # Before any of it came.
        with contextlib.closing(connection), connection.getresponse() as response:
            problem = json.loads(response.read())
        documented = documented_problem(BatchDesk(url, settings), 413, "batch-too-large")
    assert (problem["status"], problem["code"]) == (413, "batch-too-large")
    assert "100,000 bytes" in problem["detail"]
    assert "QUEUE_MAX_BYTES" in documented["detail"]


def test_more_than_a_thousand_images_are_refused(desk: BatchDesk) -> None:
    assert_problem(desk.post([b"x"] * 1001), 422, "too-many-images")
    desk.assert_nothing_was_accepted()


@pytest.mark.parametrize("query", ["?top_k=0", "?threshold=2"])
def test_choices_out_of_range_are_refused(desk: BatchDesk, query: str) -> None:
    assert_problem(desk.post([IMAGE], query=query), 422, "invalid-request")


def test_what_a_batch_does_not_keep_is_refused_not_left_aside(desk: BatchDesk) -> None:
    answer = desk.post([IMAGE], headers={"Cancel-After": "30s"})
    assert "Cancel-After" in assert_problem(answer, 422, "invalid-request")["detail"]
    desk.assert_nothing_was_accepted()


def test_the_answers_choices_reach_every_job(desk: BatchDesk) -> None:
    desk.submit([IMAGE] * 2, query="?top_k=2&threshold=0.5")
    assert {(claim.options.top_k, claim.options.threshold) for claim in desk.claim()} == {(2, 0.5)}


def test_a_batch_that_does_not_fit_is_refused_as_a_whole(settings: Settings) -> None:
    queue = QueueSettings(max_jobs=5)
    with run_api(create_app(settings.model_copy(update={"queue": queue}))) as url:
        desk = BatchDesk(url, settings)
        submit(desk.client)
        waiting = desk.uploads()
        response = desk.post([IMAGE] * 5)
        document = assert_problem(response, 429, "queue-full")
        assert response.headers["retry-after"]
        assert document["detail"]
        assert desk.uploads() == waiting
        assert desk.redis.keys(keys.BATCH + "*") == []
        desk.submit([IMAGE] * 4)


def test_a_batch_that_could_never_fit_is_told_so(settings: Settings) -> None:
    queue = QueueSettings(max_jobs=5)
    with run_api(create_app(settings.model_copy(update={"queue": queue}))) as url:
        document = assert_problem(
            BatchDesk(url, settings).post([IMAGE] * 6), 422, "too-many-images"
        )
    assert "5 images" in document["detail"]


def test_a_full_redis_refuses_the_whole_batch(desk: BatchDesk) -> None:
    with memory_limit_reached(desk.redis):
        assert_problem(desk.post([IMAGE] * 3), 429, "results-full")
    desk.assert_nothing_was_accepted()


@pytest.mark.parametrize("whole_images", [1, 3])
def test_a_request_that_is_broken_off_leaves_nothing(desk: BatchDesk, whole_images: int) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    body = (part + IMAGE + b"\r\n") * whole_images + part + IMAGE[:5000]
    host, port = desk.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        connection.sendall(head.encode() + body)
        wait_until(lambda: len(desk.uploads()) == whole_images)
    wait_until(lambda: not desk.uploads())
    desk.assert_nothing_was_accepted()


def test_a_form_that_ends_too_early_is_refused(desk: BatchDesk) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    response = desk.client.post(
        "/batches",
        content=part + IMAGE + b"\r\n" + part,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert_problem(response, 400, "malformed-upload")
    desk.assert_nothing_was_accepted()


def test_identical_images_are_classified_once(settings: Settings) -> None:
    result = settings.result.model_copy(update={"cache_entries": 100})
    with run_api(create_app(settings.model_copy(update={"result": result}))) as url:
        desk = BatchDesk(url, settings.model_copy(update={"result": result}))
        batch = desk.submit([IMAGE] * 3)
        assert len(desk.complete()) == 1
        document = desk.get(batch)
        assert (document["completed"], document["status"]) == (3, "completed")
        assert len(desk.read_lines(batch)) == 3


def test_what_was_answered_before_leaves_no_upload(settings: Settings) -> None:
    result = settings.result.model_copy(update={"cache_entries": 100})
    with run_api(create_app(settings.model_copy(update={"result": result}))) as url:
        desk = BatchDesk(url, settings.model_copy(update={"result": result}))
        submit(desk.client)
        answer = Answer("a-model", "7", "torch", "a-model-7")
        desk.ledger.beat("w", "{}", 60_000, answer.identity)
        (claim,) = desk.ledger.claim("w", answer).claims
        desk.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
        before = desk.uploads()
        batch = desk.submit([IMAGE, png_head(10, 10)])
        assert desk.get(batch)["completed"] == 1
        assert desk.uploads() - before == {batch["jobs"][1]["job_id"]}


# --- Following and reading ------------------------------------------------------------------------


def test_a_batch_is_counted_truly_while_it_runs(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 8)
    first = desk.get(batch)
    assert (first["pending"], first["progress"], first["status"]) == (8, 0, "processing")
    claims = desk.claim(3)
    assert (desk.get(batch)["processing"], desk.get(batch)["pending"]) == (3, 5)
    desk.ledger.finish(
        [
            Outcome.completed(claims[0], PREDICTIONS),
            Outcome.failed(claims[1], "truncated-image", "Send the whole file."),
        ]
    )
    document = desk.get(batch)
    counts = {name: document[name] for name in ("pending", "processing", "completed", "failed")}
    assert counts == {"pending": 5, "processing": 1, "completed": 1, "failed": 1}
    assert (document["total"], document["progress"], document["cancelled"]) == (8, 25, 0)
    assert document["created_at"] <= document["updated_at"]
    desk.ledger.hand_back("w")
    assert desk.get(batch)["pending"] == 6
    while desk.complete():
        pass
    document = desk.get(batch)
    assert (document["status"], document["progress"]) == ("completed", 100)
    assert (document["completed"], document["failed"]) == (7, 1)


def test_results_can_be_read_while_the_batch_runs(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 5, ["a", "b", "c", "d", "e"])
    assert desk.read_lines(batch) == []
    first = desk.complete(2)
    lines = desk.read_lines(batch)
    assert [line["job_id"] for line in lines] == first
    job = batch["jobs"][0]
    assert lines[0] == job | {"status": "completed", "predictions": PREDICTIONS}
    (claim,) = desk.claim(1)
    desk.ledger.finish([Outcome.failed(claim, "truncated-image", "Send the whole file.")])
    (line,) = desk.read_lines(batch, after=2)
    assert (line["custom_id"], line["filename"], line["status"]) == ("c", "2.jpg", "failed")
    result = desk.client.get(f"/result/{claim.job_id}").json()
    assert line["problem"] == {name: result[name] for name in line["problem"]}
    last = desk.complete(4)
    assert [line["job_id"] for line in desk.read_lines(batch, after=3)] == last
    assert desk.read_lines(batch, after=5) == []
    assert len(desk.read_lines(batch)) == 5


def test_many_results_are_all_there(desk: BatchDesk) -> None:
    batch = desk.submit([b"no image"] * 1000)
    lines = desk.read_lines(batch)
    assert [line["job_id"] for line in lines] == [job["job_id"] for job in batch["jobs"]]
    assert len(desk.read_lines(batch, after=900)) == 100


def test_results_are_compressed_on_their_way(desk: BatchDesk) -> None:
    batch = desk.submit([b"no image"] * 250)
    address = f"/batches/{batch['batch_id']}/results"
    plain = desk.client.get(address, headers={"Accept-Encoding": "identity"})
    with desk.client.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as response:
        packed = b"".join(response.iter_raw())
    assert "content-encoding" not in plain.headers
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain.content
    assert len(packed) * 5 < len(plain.content)


def test_results_outlive_the_last_job_of_their_batch(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 3)
    (early,) = desk.complete(1)
    assert desk.redis.ttl(keys.job(early)) == -1
    desk.complete()
    names = [keys.batch(batch["batch_id"]), keys.batch_ended(batch["batch_id"])]
    names += [keys.job(job["job_id"]) for job in batch["jobs"]]
    ttls = {desk.redis.ttl(name) for name in names}
    assert min(ttls) > desk.settings.result.ttl - 60
    assert max(ttls) <= desk.settings.result.ttl


@pytest.mark.parametrize("path", ["", "/results"])
def test_an_unknown_batch_is_not_found(desk: BatchDesk, path: str) -> None:
    assert_problem(desk.client.get(UNKNOWN + path), 404, "batch-not-found")
    assert_problem(desk.client.get("/batches/of-mine" + path), 404, "batch-not-found")


@pytest.mark.parametrize("after", ["-1", "x", "1001"])
def test_lines_that_can_not_be_are_refused(desk: BatchDesk, after: str) -> None:
    batch = desk.submit()
    response = desk.client.get(f"/batches/{batch['batch_id']}/results?after={after}")
    assert_problem(response, 422, "invalid-request")


def test_batches_answer_under_the_versions_prefix(desk: BatchDesk) -> None:
    response = desk.client.post("/v1/batches", files=[("file", ("a", IMAGE))])
    location = response.headers["location"]
    assert location.startswith("/v1/batches/")
    assert desk.client.get(location).status_code == 200


def test_many_batches_at_once_are_each_whole(desk: BatchDesk) -> None:
    documents = list[dict[str, Any]]()
    threads = [
        threading.Thread(target=lambda: documents.append(send(desk, [IMAGE] * 10)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.redis.llen(keys.BULK_QUEUE) == 80
    assert [desk.get(document)["pending"] for document in documents] == [10] * 8


def send(desk: BatchDesk, images: Sequence[bytes]) -> dict[str, Any]:
    files = [("file", ("x", image)) for image in images]
    document: dict[str, Any] = httpx2.post(f"{desk.url}/batches", files=files, timeout=30).json()
    return document
