"""The OpenAPI document: complete, and true of the running API whatever is thrown at it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import schemathesis
from httpx2 import Client
from pydantic import SecretStr
from schemathesis.checks import CHECKS, CheckFunction, load_all_checks

from app.core import keys
from app.core.config import (
    AdminSettings,
    QueueSettings,
    RedisSettings,
    ResultSettings,
    Settings,
    WebhookSettings,
)
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.main import create_app
from tests.api_client import SAMPLE, UNKNOWN_ID
from tests.api_server import run_api
from tests.test_dead_letters import PREDICTIONS

load_all_checks()

# A schema can say "a file" but not "a file that is an image": what it lets pass is refused rightly.
INAPPLICABLE = ("positive_data_acceptance",)

ADMIN_TOKEN = "the-admin-token-which-nobody-guesses"
DEAD_LETTERS = "/admin/dead-letters"
ANSWER = Answer("a-model", "1", "torch")
AUTHORIZATION = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


@pytest.fixture(scope="module")
def api_url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        redis=RedisSettings(url=redis_url),
        data_dir=tmp_path_factory.mktemp("data"),
        admin=AdminSettings(token=SecretStr(ADMIN_TOKEN)),
        # Most of the jobs here never end; each shall have an end of its own.
        result=ResultSettings(wait_limit_seconds=0, cache_entries=0),
        # The generated requests register many, and delete few.
        webhook=WebhookSettings(max_endpoints=10_000),
    )
    with run_api(create_app(settings)) as url:
        yield url


@pytest.fixture(scope="module")
def known_ids(api_url: str, redis_url: str) -> list[str]:
    """A job in every state that a client can see."""
    queue = QueueSettings(batch_size=5)
    settings = Settings(redis=RedisSettings(url=redis_url), queue=queue)
    with redis.Redis.from_url(redis_url) as connection:
        connection.delete(keys.QUEUE)
    with Client(base_url=api_url) as client:
        answers = [client.post("/classify", files={"file": SAMPLE.read_bytes()}) for _ in range(6)]
    ids = [answer.json()["job_id"] for answer in answers]
    with redis.Redis.from_url(redis_url) as connection:
        ledger = RedisLedger(connection, settings)
        claims = ledger.claim("w", ANSWER).claims
        ledger.finish(
            [
                Outcome.completed(claims[0], PREDICTIONS),
                Outcome.failed(claims[1], "truncated-image", "Send the whole file."),
                Outcome.failed(claims[2], "classification-failed", "Submit it again."),
                Outcome.cancelled(claims[3]),
            ]
        )
    return ids


def create_dead_letter(api_url: str, redis_url: str) -> str:
    with redis.Redis.from_url(redis_url) as connection:
        connection.delete(keys.QUEUE)
        with Client(base_url=api_url) as client:
            answer = client.post("/classify", files={"file": SAMPLE.read_bytes()})
        ledger = RedisLedger(connection, Settings())
        (claim,) = ledger.claim("v", Answer("a-model", "1", "torch")).claims
        ledger.finish(
            [Outcome.unprocessable(claim, "classification-failed", "Submit it again.", "why")]
        )
    return str(answer.json()["job_id"])


@pytest.fixture(scope="module")
def document(api_url: str) -> dict[str, Any]:
    with Client(base_url=api_url) as client:
        answer: dict[str, Any] = client.get("/openapi.json").json()
    return answer


@pytest.fixture(scope="module")
def fuzzed_schema(api_url: str) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{api_url}/openapi.json")


def applicable_checks(*left_out: str) -> list[CheckFunction]:
    names = (*INAPPLICABLE, *left_out)
    return [check for check in CHECKS.get_all() if check.__name__ not in names]


def test_the_api_answers_as_documented_whatever_it_is_sent(api_url: str, tmp_path: Path) -> None:
    """Generated requests: edge cases of the schema, random ones, and sequences along the links."""
    configuration = tmp_path / "schemathesis.toml"
    # Nothing happens to the jobs here: the first event of each is the only one.
    configuration.write_text("max-stream-events = 1\n")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration)]
    command += ["run", f"{api_url}/openapi.json"]
    command += ["--max-examples", "40", "--seed", "1", "--no-color"]
    command += ["--exclude-checks", ",".join(INAPPLICABLE)]
    command += ["--header", f"Authorization: {AUTHORIZATION['Authorization']}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr


def test_documented_answers_hold_in_every_state(
    fuzzed_schema: schemathesis.BaseSchema, known_ids: list[str]
) -> None:
    seen = set()
    for path in ("/status/{job_id}", "/result/{job_id}"):
        operation = fuzzed_schema[path]["GET"]
        for job_id in known_ids:
            case = operation.Case(path_parameters={"job_id": job_id})
            # The result of a job that failed through our fault is a 500, and rightly so.
            checks = applicable_checks("not_a_server_error")
            seen.add(case.call_and_validate(checks=checks).status_code)
    assert seen == {200, 202, 410, 422, 500}


def test_cancelling_and_erasing_are_answered_as_documented(
    fuzzed_schema: schemathesis.BaseSchema, api_url: str, redis_url: str
) -> None:
    def call(method: str, path: str, job_id: str) -> int:
        case = fuzzed_schema[path][method].Case(path_parameters={"job_id": job_id})
        status: int = case.call_and_validate(checks=applicable_checks()).status_code
        return status

    with redis.Redis.from_url(redis_url) as connection, Client(base_url=api_url) as client:
        connection.delete(keys.QUEUE)
        files = {"file": SAMPLE.read_bytes()}
        held, waiting = (client.post("/classify", files=files).json()["job_id"] for _ in range(2))
        queue = QueueSettings(batch_size=1)
        ledger = RedisLedger(connection, Settings(queue=queue))
        assert [claim.job_id for claim in ledger.claim("u", ANSWER).claims] == [held]
    cancel = "/jobs/{job_id}/cancel"
    assert [call("POST", cancel, job_id) for job_id in (held, waiting, waiting)] == [202, 200, 409]
    assert [call("DELETE", "/jobs/{job_id}", held) for _ in range(2)] == [204, 410]
    assert [call("POST", cancel, held), call("GET", "/status/{job_id}", held)] == [410, 410]


def test_dead_letters_are_answered_as_documented(
    fuzzed_schema: schemathesis.BaseSchema, api_url: str, redis_url: str
) -> None:
    def call(method: str, path: str, status: int, job_id: str | None = None) -> None:
        parameters = {"job_id": job_id} if job_id else {}
        case = fuzzed_schema[DEAD_LETTERS + path][method].Case(path_parameters=parameters)
        # It would look for the token in the case; that every call needs it, another test shows.
        checks = applicable_checks("ignored_auth")
        assert case.call_and_validate(headers=AUTHORIZATION, checks=checks).status_code == status

    endings = [("POST", "/{job_id}/retry", 202), ("POST", "/retry", 202)]
    endings += [("DELETE", "/{job_id}", 200), ("DELETE", "", 200)]
    for method, path, status in endings:
        job_id = create_dead_letter(api_url, redis_url)
        call("GET", "", 200)
        call("GET", "/{job_id}", 200, job_id)
        call("GET", "/{job_id}/upload", 200, job_id)
        call(method, path, status, job_id if "{job_id}" in path else None)
        call("GET", "/{job_id}", 404, job_id)


def test_batches_are_answered_as_documented(
    fuzzed_schema: schemathesis.BaseSchema, redis_url: str
) -> None:
    def call(method: str, path: str, status: int, **parts: Any) -> Any:
        case = fuzzed_schema[f"/batches{path}"][method].Case(**parts)
        answer = case.call_and_validate(checks=applicable_checks())
        assert answer.status_code == status
        return answer

    form = {"file": [SAMPLE.read_bytes(), b"no image"]}
    batch = call("POST", "", 202, body=form, media_type="multipart/form-data").json()
    refused = batch["jobs"][1]["job_id"]
    case = fuzzed_schema["/result/{job_id}"]["GET"].Case(path_parameters={"job_id": refused})
    assert case.call_and_validate(checks=applicable_checks()).status_code == 415
    parameters = {"batch_id": batch["batch_id"]}
    for method, path, status in (
        ("GET", "/{batch_id}", 200),
        ("GET", "/{batch_id}/results", 200),
        ("POST", "/{batch_id}/cancel", 200),
        ("POST", "/{batch_id}/cancel", 409),
        ("DELETE", "/{batch_id}", 204),
        ("GET", "/{batch_id}", 410),
    ):
        call(method, path, status, path_parameters=parameters)


def test_webhooks_are_answered_as_documented(fuzzed_schema: schemathesis.BaseSchema) -> None:
    def call(method: str, path: str, status: int, **parts: Any) -> Any:
        case = fuzzed_schema[f"/webhooks{path}"][method].Case(**parts)
        answer = case.call_and_validate(checks=applicable_checks())
        assert answer.status_code == status
        return answer

    body = {"url": "https://example.com/hook", "events": ["job.failed"]}
    created = call("POST", "", 201, body=body, media_type="application/json").json()
    one = {"path_parameters": {"webhook_id": created["webhook_id"]}}
    call("GET", "", 200)
    call("GET", "/{webhook_id}", 200, **one)
    call("POST", "/{webhook_id}/rotate-secret", 200, **one)
    call("GET", "/deliveries", 200, query={"webhook_id": created["webhook_id"], "limit": 5})
    call("DELETE", "/{webhook_id}", 204, **one)
    call("GET", "/{webhook_id}", 404, **one)


def test_pages_of_other_origins_are_refused_as_documented(
    fuzzed_schema: schemathesis.BaseSchema, document: dict[str, Any]
) -> None:
    for path, operations in document["paths"].items():
        ids = {name: UNKNOWN_ID for name in re.findall(r"{(\w+)}", path)}
        for method in {"post", "delete"} & set(operations):
            case = fuzzed_schema[path][method.upper()].Case(path_parameters=ids)
            headers = AUTHORIZATION | {"Origin": "https://other.example"}
            checks = applicable_checks("ignored_auth")
            assert case.call_and_validate(headers=headers, checks=checks).status_code == 403
            answer = operations[method]["responses"]["403"]["content"]["application/problem+json"]
            assert "cross-origin" in answer["examples"], f"{method} {path}"


def test_a_real_image_is_answered_as_documented(
    fuzzed_schema: schemathesis.BaseSchema,
) -> None:
    operation = fuzzed_schema["/classify"]["POST"]
    case = operation.Case(body={"file": SAMPLE.read_bytes()}, media_type="multipart/form-data")
    assert case.call_and_validate(checks=applicable_checks()).status_code == 202


def test_every_operation_has_words_and_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method} {path}"
            assert operation["summary"] and operation["description"], place
            for status, answer in operation["responses"].items():
                assert answer["description"], f"{place} {status}"
                if status >= "400" and path != "/health":
                    assert list(answer["content"]) == ["application/problem+json"], place


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= names
