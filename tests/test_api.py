"""The HTTP contract, as clients see it, over a real Redis. No worker runs here."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx2
import pytest
import redis
from fastapi import FastAPI
from httpx2 import Client

from app.core import keys
from app.core.config import LimitSettings, Settings
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import SAMPLE, UNKNOWN_ID, assert_problem, png_head, submit
from tests.api_server import run_api
from tests.service import wait_until

UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PREDICTIONS = [
    {"class_name": name, "confidence": confidence}
    for name, confidence in (("cat", 0.5), ("dog", 0.2), ("cow", 0.1), ("hen", 0.05), ("fox", 0.01))
]


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


@pytest.fixture
def ledger(settings: Settings) -> RedisLedger:
    return RedisLedger(redis.Redis.from_url(settings.redis.url), settings)


# --- POST /classify -------------------------------------------------------------------------------


def test_an_image_is_accepted_with_a_job_id(client: Client) -> None:
    response = submit(client)
    document = response.json()
    assert response.status_code == 202
    assert document == {"job_id": document["job_id"], "status": "pending"}
    assert UUID(document["job_id"]).version == 4
    assert response.headers["location"] == f"/status/{document['job_id']}"
    assert response.headers["retry-after"] == "1"


def test_an_accepted_image_waits_unchanged_in_the_payload_store(
    client: Client, settings: Settings
) -> None:
    job_id = submit(client).json()["job_id"]
    assert (payload_folder(settings) / job_id).read_bytes() == SAMPLE.read_bytes()


@pytest.mark.parametrize(
    ("query", "queue"),
    [("", keys.QUEUE), ("?priority=interactive", keys.QUEUE), ("?priority=bulk", keys.BULK_QUEUE)],
)
def test_a_job_waits_in_the_queue_of_its_priority(
    client: Client, settings: Settings, query: str, queue: str
) -> None:
    client.post(f"/classify{query}", files={"file": SAMPLE.read_bytes()})
    assert redis.Redis.from_url(settings.redis.url).llen(queue) == 1


def test_an_unknown_priority_is_refused(client: Client) -> None:
    response = client.post("/classify?priority=high", files={"file": SAMPLE.read_bytes()})
    document = assert_problem(response, 422, "invalid-request")
    assert "interactive, bulk" in document["detail"]


def test_a_doorbell_is_rung(client: Client, settings: Settings) -> None:
    submit(client)
    with redis.Redis.from_url(settings.redis.url) as connection:
        bell = connection.brpop([keys.DOORBELLS], timeout=5)
    assert bell is not None
    assert json.loads(bell[1])["headers"]["task"] == "classification.classify_batch"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"just text", 415, "unsupported-image"),
        (b"GIF89a" + bytes(50), 415, "unsupported-image"),
        (b"RIFF\0\0\0\0WEBP" + bytes(50), 415, "unsupported-image"),
        (b"\xff\xd8", 422, "malformed-image"),
        (b"\xff\xd8\xff\xe0", 422, "malformed-image"),
        (b"\xff\xd8\xff\xd9", 422, "malformed-image"),
        (png_head(10, 10)[:20], 422, "malformed-image"),
        (png_head(0, 10), 422, "malformed-image"),
        (png_head(16_385, 1), 413, "image-too-large"),
        (png_head(10_000, 5_001), 413, "image-too-large"),
    ],
)
def test_what_is_not_an_image_is_refused(
    client: Client, settings: Settings, data: bytes, status: int, code: str
) -> None:
    assert_problem(submit(client, data), status, code)
    assert list(payload_folder(settings).iterdir()) == []


def test_the_largest_dimensions_are_accepted(client: Client) -> None:
    assert submit(client, png_head(16_384, 1)).status_code == 202
    assert submit(client, png_head(10_000, 5_000)).status_code == 202


def test_an_empty_file_is_refused(client: Client) -> None:
    response = client.post("/classify", files={"file": ("x.jpg", b"")})
    assert_problem(response, 422, "empty-file")


def test_a_form_without_the_field_is_refused(client: Client) -> None:
    response = client.post("/classify", files={"image": ("x.jpg", SAMPLE.read_bytes())})
    assert_problem(response, 422, "missing-file")


def test_two_files_are_refused(client: Client) -> None:
    files = [("file", ("a", SAMPLE.read_bytes())), ("file", ("b", SAMPLE.read_bytes()))]
    assert_problem(client.post("/classify", files=files), 422, "missing-file")


def test_a_body_that_is_no_form_is_refused(client: Client) -> None:
    response = client.post("/classify", content=SAMPLE.read_bytes())
    assert_problem(response, 415, "not-multipart")


def test_a_form_that_ends_too_early_is_refused(client: Client) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    response = client.post(
        "/classify",
        content=head + SAMPLE.read_bytes(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert_problem(response, 400, "malformed-upload")


def test_a_boundary_that_is_too_long_is_refused(client: Client) -> None:
    headers = {"content-type": f"multipart/form-data; boundary={'b' * 300}"}
    assert_problem(client.post("/classify", content=b"x", headers=headers), 400, "malformed-upload")


class TestFileSizeLimit:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        size = SAMPLE.stat().st_size
        return settings.model_copy(update={"limits": LimitSettings(file_size=size)})

    def test_a_file_of_exactly_the_limit_is_accepted(self, client: Client) -> None:
        assert submit(client).status_code == 202

    def test_a_byte_more_is_refused(self, client: Client, settings: Settings) -> None:
        assert_problem(submit(client, SAMPLE.read_bytes() + b"x"), 413, "file-too-large")
        assert list(payload_folder(settings).iterdir()) == []

    def test_a_body_without_a_length_is_refused_while_it_is_still_being_sent(
        self, client: Client
    ) -> None:
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port or 80), timeout=10) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            )
            part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
            for piece in (part, SAMPLE.read_bytes(), b"x"):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"code":"file-too-large"' in answer

    def test_a_length_over_the_limit_is_refused_before_the_body_is_sent(
        self, client: Client
    ) -> None:
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port or 80), timeout=10) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            )
            assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


# --- GET /status, GET /result ---------------------------------------------------------------------


def test_the_status_of_a_waiting_job(client: Client) -> None:
    job_id = submit(client).json()["job_id"]
    document = client.get(f"/status/{job_id}").json()
    assert document["job_id"] == job_id
    assert (document["status"], document["progress"]) == ("pending", 0)
    assert UTC_TIME.fullmatch(document["updated_at"])


def test_the_result_of_a_waiting_job_is_its_status(client: Client) -> None:
    job_id = submit(client).json()["job_id"]
    response = client.get(f"/result/{job_id}")
    assert (response.status_code, response.json()["status"]) == (202, "pending")
    assert response.headers["retry-after"] == "1"
    assert response.headers["location"] == f"/status/{job_id}"


def test_the_result_of_a_completed_job(client: Client, ledger: RedisLedger) -> None:
    job_id = submit(client).json()["job_id"]
    claims = ledger.claim("w", Answer("a-model", "7", "torch")).claims
    ledger.finish([Outcome.completed(claims[0], PREDICTIONS)])
    response = client.get(f"/result/{job_id}")
    document = response.json()
    assert response.status_code == 200
    assert (document["job_id"], document["predictions"]) == (job_id, PREDICTIONS)
    assert document["processing_time"] >= 0 and document["queue_time"] >= 0
    assert UTC_TIME.fullmatch(document["created_at"])
    assert document["model"] == {"name": "a-model", "version": "7", "engine": "torch"}
    status = client.get(f"/status/{job_id}").json()
    assert (status["status"], status["progress"]) == ("completed", 100)


@pytest.mark.parametrize(
    ("code", "status"), [("undecodable-image", 422), ("classification-failed", 500)]
)
def test_the_result_of_a_failed_job_says_whose_fault_it_was(
    client: Client, ledger: RedisLedger, code: str, status: int
) -> None:
    job_id = submit(client).json()["job_id"]
    claims = ledger.claim("w", Answer("a-model", "7", "torch")).claims
    ledger.finish([Outcome.failed(claims[0], code, "what to do")])
    document = assert_problem(client.get(f"/result/{job_id}"), status, code)
    assert (document["detail"], document["job_id"]) == ("what to do", job_id)
    assert client.get(f"/status/{job_id}").json()["status"] == "failed"


@pytest.mark.parametrize("path", ["status", "result"])
@pytest.mark.parametrize("job_id", [UNKNOWN_ID, "no-uuid"])
def test_an_unknown_job_is_not_found(client: Client, path: str, job_id: str) -> None:
    assert_problem(client.get(f"/{path}/{job_id}"), 404, "job-not-found")


# --- GET /health ----------------------------------------------------------------------------------


def test_without_a_worker_the_service_is_degraded(client: Client) -> None:
    response = client.get("/health")
    document = response.json()
    assert response.status_code == 200
    assert (document["status"], document["redis_connected"]) == ("degraded", True)
    assert document["workers_available"] == 0
    assert "no worker" in document["reasons"][0]
    assert UTC_TIME.fullmatch(document["timestamp"])


def test_an_evicting_redis_degrades_the_service(client: Client, settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis.url) as connection:
        connection.config_set("maxmemory-policy", "allkeys-lru")
    assert any("allkeys-lru" in reason for reason in client.get("/health").json()["reasons"])


def test_live_and_ready(client: Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


class TestRedisAway:
    @pytest.fixture
    def settings(self, settings: Settings, tmp_path: Path) -> Settings:
        away = settings.redis.model_copy(update={"url": f"unix://{tmp_path}/nothing.sock"})
        return settings.model_copy(update={"redis": away})

    def test_health_is_unhealthy(self, client: Client) -> None:
        response = client.get("/health")
        document = response.json()
        assert response.status_code == 503
        assert (document["status"], document["redis_connected"]) == ("unhealthy", False)

    def test_live_is_live_and_ready_is_not(self, client: Client) -> None:
        assert client.get("/health/live").status_code == 200
        assert_problem(client.get("/health/ready"), 503, "service-unavailable")

    def test_nothing_is_accepted_and_nothing_is_left(
        self, client: Client, settings: Settings
    ) -> None:
        response = submit(client)
        assert_problem(response, 503, "service-unavailable")
        assert response.headers["retry-after"] == "2"
        assert list(payload_folder(settings).iterdir()) == []


# --- Everything else ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/health/live", "/docs", "/openapi.json", "/problems/not-found", "/status/{job_id}"]
)
def test_whatever_can_be_got_has_a_head(client: Client, path: str) -> None:
    path = path.format(job_id=submit(client).json()["job_id"])
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["x-request-id"]
    assert "HEAD" in client.put(path).headers["allow"]


def test_the_head_of_nothing_is_an_error_without_its_text(client: Client) -> None:
    for path, status in ((f"/status/{uuid4()}", 404), ("/classify", 405)):
        response = client.head(path)
        assert (response.status_code, response.content) == (status, b"")


def test_the_frameworks_own_errors_are_problems_too(client: Client) -> None:
    assert_problem(client.get("/nothing-here"), 404, "not-found")
    response = client.put("/classify")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_every_problem_type_explains_itself(client: Client) -> None:
    document = client.get("/nothing-here").json()
    for prefix in ("", "/v1"):
        explanation = client.get(prefix + document["type"]).json()
        assert explanation["title"] == document["title"]
        # An identifier, not a link: it does not change with the prefix.
        assert client.get(f"{prefix}/nothing-here").json()["type"] == document["type"]
    assert_problem(client.get("/problems/no-such-problem"), 404, "not-found")


def test_a_type_of_two_kinds_explains_both(client: Client) -> None:
    explanation = client.get("/problems/unsupported-image").json()
    (other,) = explanation["others"]
    assert (explanation["status"], other["status"]) == (415, 422)
    assert "neither JPEG nor PNG" in explanation["detail"] and "arithmetic" in other["detail"]
    assert explanation["title"] != other["title"]


def test_a_callers_request_id_is_kept_when_it_is_harmless(client: Client) -> None:
    kept = client.get("/health/live", headers={"X-Request-ID": "order-4711"})
    assert kept.headers["x-request-id"] == "order-4711"
    replaced = client.get("/health/live", headers={"X-Request-ID": "a b;c"})
    assert re.fullmatch(r"[0-9a-f]{32}", replaced.headers["x-request-id"])


def test_a_path_cannot_forge_a_log_line(caplog: pytest.LogCaptureFixture, client: Client) -> None:
    logging.getLogger("app").addHandler(caplog.handler)
    client.get("/status/x%0AERROR%20forged%1b[31m")
    wait_until(lambda: "GET /status/x\\nERROR forged\\x1b[31m 404" in caplog.text)
    logging.getLogger("app").removeHandler(caplog.handler)


def test_an_unexpected_error_tells_nothing(settings: Settings) -> None:
    app: FastAPI = create_app(settings)

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("the password is swordfish")

    with run_api(app) as url:
        response = httpx2.get(f"{url}/boom")
    assert_problem(response, 500, "internal-error")
    assert "swordfish" not in response.text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_documentation_is_there(client: Client, path: str) -> None:
    assert client.get(path).status_code == 200
