"""The result cache as clients see it: over a real socket, with a real Redis."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from httpx2 import Response

from app.core.config import ResultSettings, Settings
from app.jobs.content import ContentDigest
from app.jobs.job import Answer, Outcome
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import SAMPLE
from tests.api_server import run_api
from tests.service import RunningService, wait_until
from tests.test_dead_letters import PREDICTIONS
from tests.test_waiting import Desk

COFFEE = SAMPLE.with_name("coffee.jpg")
ANSWER = Answer("a-model", "7", "torch", "the-identity")


class CacheDesk(Desk):
    """The API with the cache on, and a worker's hand."""

    def upload(self, image: Path = SAMPLE, **headers: str) -> Response:
        files = {"file": image.read_bytes()}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx2.post(f"{self.url}/classify", files=files, headers=names, timeout=40)

    def complete(self) -> None:
        self.ledger.beat("w", "{}", 60_000, ANSWER.identity)
        claims = self.ledger.claim("w", ANSWER).claims
        self.ledger.finish([Outcome.completed(claim, PREDICTIONS) for claim in claims])

    def status(self, response: Response) -> str:
        job_id = response.json()["job_id"]
        return str(httpx2.get(f"{self.url}/status/{job_id}").json()["status"])


@pytest.fixture
def caching(settings: Settings) -> Settings:
    return settings.model_copy(update={"result": ResultSettings()})


@pytest.fixture
def desk(caching: Settings) -> Iterator[CacheDesk]:
    with run_api(create_app(caching)) as url:
        desk = CacheDesk(url, caching)
        wait_until(lambda: desk.subscriptions() == 1, 10)
        yield desk


def test_an_image_that_comes_again_is_answered_at_once(desk: CacheDesk, caching: Settings) -> None:
    first = desk.upload()
    assert first.headers["cache-status"] == "classifier; fwd=miss"
    desk.complete()
    second = desk.upload()
    assert (second.status_code, second.headers["cache-status"]) == (202, "classifier; hit")
    assert second.json()["job_id"] != first.json()["job_id"]
    result = httpx2.get(f"{desk.url}/result/{second.json()['job_id']}")
    assert result.json()["predictions"] == PREDICTIONS
    assert "retry-after" not in second.headers
    # Of the first: no worker is here to erase it.
    assert [path.name for path in payload_folder(caching).iterdir()] == [first.json()["job_id"]]


def test_whoever_waits_has_a_known_answer_in_one_request(desk: CacheDesk) -> None:
    desk.upload()
    desk.complete()
    response = desk.upload(Prefer="wait=30")
    assert (response.status_code, response.headers["cache-status"]) == (200, "classifier; hit")
    assert response.json()["predictions"] == PREDICTIONS


def test_identical_images_under_way_share_one_classification(desk: CacheDesk) -> None:
    first, second = desk.upload(), desk.upload()
    assert second.headers["cache-status"] == "classifier; fwd=miss; collapsed"
    desk.complete()
    assert (desk.status(first), desk.status(second)) == ("completed", "completed")


def test_another_image_is_another_matter(desk: CacheDesk) -> None:
    desk.upload()
    desk.complete()
    assert desk.upload(COFFEE).headers["cache-status"] == "classifier; fwd=miss"


def test_no_cache_classifies_anew(desk: CacheDesk) -> None:
    desk.upload()
    desk.complete()
    response = desk.upload(cache_control="max-age=0, No-Cache")
    assert response.headers["cache-status"] == "classifier; fwd=request"
    assert desk.status(response) == "pending"


def test_no_store_keeps_the_answer_from_others(desk: CacheDesk) -> None:
    response = desk.upload(cache_control="no-store")
    assert "cache-status" not in response.headers
    desk.complete()
    assert desk.upload().headers["cache-status"] == "classifier; fwd=miss"


def test_off_is_off(settings: Settings) -> None:
    with run_api(create_app(settings)) as url:
        desk = CacheDesk(url, settings)
        desk.upload()
        desk.complete()
        response = desk.upload()
        assert "cache-status" not in response.headers
        assert desk.status(response) == "pending"
        assert httpx2.get(f"{url}/health").json()["cache"] is None


def test_the_health_says_what_was_saved(desk: CacheDesk) -> None:
    desk.upload()
    desk.upload()
    desk.complete()
    desk.upload()
    counts = {"answered": 1, "joined": 1, "classified": 1, "entries": 1}
    assert httpx2.get(f"{desk.url}/health").json()["cache"] == counts


def test_owners_never_share() -> None:
    digests = set()
    for owner, options, image in (
        *(("ann", "", b"x"), ("bob", "", b"x"), ("ann", "", b"y"), ("an", "", b"nx")),
        *(("annx", "", b""), ("ann", "x", b""), ("an", "n", b"x"), ("ann", "x", b"x")),
    ):
        digest = ContentDigest(owner, options)
        digest.update(image)
        digests.add(digest.value())
    assert len(digests) == 8


def test_a_digest_does_not_depend_on_how_the_bytes_came() -> None:
    whole, pieces = ContentDigest("ann"), ContentDigest("ann")
    whole.update(b"an image")
    for piece in (b"an ", b"", b"image"):
        pieces.update(piece)
    assert whole.value() == pieces.value()
    assert len(whole.value()) == 43


def test_the_whole_service_answers_from_its_cache(tmp_path: Path) -> None:
    service = RunningService(tmp_path / "data", RESULT_CACHE_ENTRIES="100")
    try:
        answers = [
            httpx2.post(
                f"{service.url}/classify",
                files={"file": COFFEE.read_bytes()},
                headers={"Prefer": "wait=30"},
                timeout=40,
            )
            for _ in range(2)
        ]
    finally:
        assert service.stop() == 0
    assert [answer.headers["cache-status"] for answer in answers] == [
        "classifier; fwd=miss",
        "classifier; hit",
    ]
    assert answers[0].json()["predictions"] == answers[1].json()["predictions"]
