"""``?top_k=3&threshold=0.5&model=NAME`` on uploads, as clients see it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from httpx2 import Client, Response

from app.core import keys
from app.core.config import ResultSettings, Settings
from app.jobs.answer_options import AnswerOptions
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.jobs.service import Heartbeat
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem
from tests.api_server import run_api
from tests.service import RunningService

WORKER = Answer("a-model", "7", "torch", "a-model-7")


class Counter:
    """The API with its cache, and a worker's half of the ledger."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.client = Client(base_url=url)
        self.redis: Any = redis.Redis.from_url(settings.redis.url)
        self.ledger = RedisLedger(self.redis, settings)

    def post(self, query: str = "") -> Response:
        return self.client.post(f"/classify{query}", files={"file": SAMPLE.read_bytes()})

    def start_worker(self, name: str, model: str) -> None:
        beat = Heartbeat(name=name, model=model, engine="torch", processes=1)
        self.ledger.beat(name, beat.model_dump_json(), 60_000, WORKER.identity)


@pytest.fixture
def counter(settings: Settings) -> Iterator[Counter]:
    cached = settings.model_copy(update={"result": ResultSettings()})
    with run_api(create_app(cached)) as url:
        yield Counter(url, cached)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", AnswerOptions()),
        ("?priority=interactive", AnswerOptions()),
        ("?top_k=5&threshold=0", AnswerOptions()),
        ("?top_k=1", AnswerOptions(top_k=1)),
        ("?top_k=100&threshold=1", AnswerOptions(top_k=100, threshold=1.0)),
        ("?threshold=.25", AnswerOptions(threshold=0.25)),
        ("?threshold=2.5e-1", AnswerOptions(threshold=0.25)),
        ("?model=any%20name", AnswerOptions(model="any name")),
    ],
)
def test_the_worker_gets_what_was_chosen(
    counter: Counter, query: str, options: AnswerOptions
) -> None:
    assert counter.post(query).status_code == 202
    (claim,) = counter.ledger.claim("w", WORKER).claims
    assert claim.options == options


def test_a_job_without_a_choice_has_a_record_without_one(counter: Counter) -> None:
    job_id = counter.post("?top_k=5&threshold=0.0").json()["job_id"]
    assert not counter.redis.hexists(keys.job(job_id), "options")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        *((f"?top_k={text}", "from 1 to 100") for text in ("0", "101", "-1", "", "five", "1.0")),
        ("?top_k=1&top_k=2", "once"),
        *((f"?threshold={text}", "from 0 to 1") for text in ("1.01", "-0.1", "", "nan", "inf")),
        *((f"?threshold={text}", "from 0 to 1") for text in ("1e999", "%C2%B2", "0.5%0a", "half")),
        ("?model=", "name of a model"),
        ("?model=a%0Ab", "name of a model"),
        (f"?model={'x' * 101}", "name of a model"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(
    counter: Counter, query: str, words: str
) -> None:
    document = assert_problem(counter.post(query), 422, "invalid-request")
    assert words in document["detail"]
    assert not counter.redis.exists(keys.QUEUE)


def test_models_are_those_that_workers_have(counter: Counter) -> None:
    counter.start_worker("one", "a-model")
    counter.start_worker("two", "b-model")
    assert counter.post("?model=a-model").status_code == 202
    assert counter.post("?model=b-model").status_code == 202
    for name in ("c-model", "", "a%0Ab", "x" * 101):
        document = assert_problem(counter.post(f"?model={name}"), 422, "invalid-request")
        assert "a-model or b-model" in document["detail"]


def test_without_a_worker_every_name_may_be_right(counter: Counter) -> None:
    assert counter.post("?model=c-model").status_code == 202


def test_another_choice_is_another_content(counter: Counter) -> None:
    """What was answered before is found again for the same choice alone, however it is written."""
    counter.start_worker("one", WORKER.model)
    for query in ("?top_k=1", "?threshold=0.5"):
        assert counter.post(query).headers["cache-status"] == "classifier; fwd=miss"
        counter.ledger.finish(
            [Outcome.completed(claim, []) for claim in counter.ledger.claim("w", WORKER).claims]
        )
    assert counter.post().headers["cache-status"] == "classifier; fwd=miss"
    for query in ("?top_k=01&threshold=0", "?threshold=0.50", "?threshold=5e-1&top_k=5"):
        assert counter.post(query).headers["cache-status"] == "classifier; hit", query


def test_an_answer_may_be_empty(counter: Counter) -> None:
    job_id = counter.post("?threshold=1").json()["job_id"]
    (claim,) = counter.ledger.claim("w", WORKER).claims
    counter.ledger.finish([Outcome.completed(claim, [])])
    assert counter.client.get(f"/result/{job_id}").json()["predictions"] == []


def test_a_model_that_nobody_has_is_the_jobs_error(counter: Counter) -> None:
    job_id = counter.post("?model=gone").json()["job_id"]
    (claim,) = counter.ledger.claim("w", WORKER).claims
    error = "model-unavailable"
    counter.ledger.finish([Outcome.unprocessable(claim, error, "Gone.", "other_model")])
    assert_problem(counter.client.get(f"/result/{job_id}"), 500, error)


def test_the_whole_service_answers_as_was_chosen(service: RunningService) -> None:
    with Client(base_url=service.url, headers={"Prefer": "wait=30"}, timeout=40) as client:
        model = client.get("/health").json()["workers"][0]["model"]
        files = {"file": SAMPLE.read_bytes()}
        query = {"top_k": "8", "threshold": "0.005", "model": model}
        predictions = client.post("/classify", files=files, params=query).json()["predictions"]
        assert 0 < len(predictions) <= 8
        assert all(item["confidence"] >= 0.005 for item in predictions), json.dumps(predictions)
        (best,) = client.post("/classify?top_k=1", files=files).json()["predictions"]
        assert best == predictions[0]
