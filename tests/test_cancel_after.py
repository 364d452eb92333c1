"""The ``Cancel-After`` header, and what clients see of a job whose time was up."""

import os
import re
from collections.abc import Iterator

import pytest
import redis
from httpx2 import Client

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Answer
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import assert_problem, submit
from tests.api_server import run_api

WEEK_SECONDS = 7 * 24 * 3600


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


@pytest.fixture
def direct(settings: Settings) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(settings.redis.url) as connection:
        yield connection


def is_as_the_contract_has_it(client: Client, text: str) -> bool:
    operation = client.get("/openapi.json").json()["paths"]["/classify"]["post"]
    (header,) = (item for item in operation["parameters"] if item["name"] == "Cancel-After")
    schema = header["schema"]
    return len(text) >= schema["minLength"] and bool(re.search(schema["pattern"], text))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("30", 30),
        ("1m", 60),
        ("1m30s", 90),
        ("2h", 7200),
        ("1h2m3s", 3723),
        ("1h30", 3630),
        ("0.5s", 0.5),
        ("1.25", 1.25),
        ("168h", WEEK_SECONDS),
        (str(WEEK_SECONDS), WEEK_SECONDS),
    ],
)
def test_a_job_has_so_long_to_be_claimed(
    client: Client, direct: "redis.Redis", text: str, seconds: float
) -> None:
    job_id = submit(client, cancel_after=text).json()["job_id"]
    created, deadline = direct.hmget(keys.job(job_id), "created", "deadline")
    assert created is not None and deadline is not None
    assert int(deadline) - int(created) == seconds * 1000
    assert direct.zscore(keys.DEADLINES, job_id) == int(deadline)
    assert is_as_the_contract_has_it(client, text)


def test_without_the_header_a_job_has_no_deadline(client: Client, direct: "redis.Redis") -> None:
    job_id = submit(client).json()["job_id"]
    assert not direct.hexists(keys.job(job_id), "deadline")
    assert direct.exists(keys.DEADLINES) == 0


@pytest.mark.parametrize(
    "text",
    ["", "0", "0s", "-5", "5 s", "30S", "1s1m", "soon", "1d", "1e3", "inf", "nan", "169h"]
    + ["604800.001", "9999999999", "1.2345s", "1m 30s", "h", "s"],
)
def test_what_is_no_such_duration_is_refused_and_leaves_nothing(
    client: Client, settings: Settings, direct: "redis.Redis", text: str
) -> None:
    document = assert_problem(submit(client, cancel_after=text), 422, "invalid-request")
    assert "Cancel-After" in document["detail"]
    # How long a duration is, no pattern tells.
    is_out_of_range = text in ("0", "0s", "169h", "604800.001")
    assert is_as_the_contract_has_it(client, text) == is_out_of_range
    assert os.listdir(payload_folder(settings)) == []
    assert direct.exists(keys.QUEUE) == 0


def test_an_expired_job_has_failed_and_its_result_says_why(
    client: Client, settings: Settings, direct: "redis.Redis"
) -> None:
    job_id = submit(client, cancel_after="0.001s").json()["job_id"]
    turn = RedisLedger(direct, settings).claim("w", Answer("a-model", "7", "torch"))
    assert (turn.claims, turn.ended) == ([], [job_id])
    status = client.get(f"/status/{job_id}").json()
    assert (status["status"], status["progress"]) == ("failed", 0)
    response = client.get(f"/result/{job_id}")
    document = assert_problem(response, 504, "deadline-exceeded")
    assert document["job_id"] == job_id
    assert client.get(document["type"]).json()["status"] == 504
