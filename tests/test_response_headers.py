"""Every answer says what browsers and caches may do with it: one walk over all routes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from fastapi import FastAPI
from httpx2 import Client, Response
from pydantic import SecretStr
from starlette.routing import Route

from app.core.config import (
    AdminSettings,
    AllowedSettings,
    CorsSettings,
    QueueSettings,
    RedisSettings,
    RetrySettings,
    Settings,
)
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.main import create_app
from tests.api_client import SAMPLE, UNKNOWN_ID, submit
from tests.api_server import run_api

TOKEN = "the-admin-token-of-these-tests-32"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://app.example.org"

ONCE = (
    "content-security-policy",
    "cross-origin-resource-policy",
    "cache-control",
    "referrer-policy",
    "x-content-type-options",
    "x-request-id",
)

CONFIDENTIAL = re.compile(r"(/v1)?/(webhooks|admin)(/.*)?")
EVENTS = re.compile(r".*/events")
PAGES = re.compile(r"(/v1)?(/|/web/.*|/docs(/.*)?|/redoc)")


def create_settings(redis_url: str, **changes: Any) -> Settings:
    defaults = {
        "redis": RedisSettings(url=redis_url),
        "admin": AdminSettings(token=SecretStr(TOKEN)),
        "retry": RetrySettings(limit=0),
        "queue": QueueSettings(max_attempts=1),
    }
    return Settings(**(defaults | changes))


def assert_complete(answer: Response, resource_policy: str = "same-origin") -> None:
    where = f"{answer.request.method} {answer.request.url.path}: {answer.status_code}"
    headers = answer.headers
    for name in ONCE:
        assert len(headers.get_list(name)) == 1, f"{where}: {name}"
    assert headers["x-content-type-options"] == "nosniff", where
    assert headers["referrer-policy"] == "no-referrer", where
    assert headers["cross-origin-resource-policy"] == resource_policy, where
    rules = [rule.strip() for rule in headers["content-security-policy"].split(";")]
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(rules), where
    assert "unsafe" not in headers["content-security-policy"], where
    if headers.get("content-type", "").startswith("text/html"):
        assert headers["x-frame-options"] == "DENY", where
        assert headers["cross-origin-opener-policy"] == "same-origin", where


def expect_caching(answer: Response) -> str:
    path = answer.request.url.path
    if CONFIDENTIAL.fullmatch(path) or (EVENTS.fullmatch(path) and answer.status_code == 200):
        return "no-store"
    if PAGES.fullmatch(path) and answer.status_code in (200, 304):
        return "no-cache"
    return "private, no-cache"


# --- All routes -----------------------------------------------------------------------------------


class Office:
    """The API with something to show under each kind of id."""

    def __init__(self, app: FastAPI, url: str, redis_url: str) -> None:
        self.app = app
        self.client = Client(base_url=url, headers=AUTHORIZATION, timeout=30)
        ledger_redis: Any = redis.Redis.from_url(redis_url)
        ledger = RedisLedger(ledger_redis, app.state.settings)
        submit(self.client)
        (claim,) = ledger.claim("w", Answer("a-model", "1", "torch")).claims
        ledger.finish([Outcome.completed(claim, [{"class_name": "cat", "confidence": 0.9}])])
        batch = self.client.post("/batches", files={"file": SAMPLE.read_bytes()}).json()
        webhook = {"url": "https://93.184.215.14/hook"}
        self.known = {
            "job_id": claim.job_id,
            "batch_id": batch["batch_id"],
            "webhook_id": self.client.post("/webhooks", json=webhook).json()["webhook_id"],
            "delivery_id": "none",
            "code": "queue-full",
            "name": "main.js",
        }

    def list_paths(self) -> Iterator[tuple[str, Route]]:
        """Each route with ids that are known, then with ids that are not."""
        for route in self.app.routes:
            assert isinstance(route, Route)
            template = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
            yield template.format_map(self.known), route
            if "{" in template:
                yield template.format_map(dict.fromkeys(self.known, UNKNOWN_ID)), route

    def send(self, method: str, path: str, **options: Any) -> Response:
        """The answer's head; bodies may be streams that do not end."""
        with self.client.stream(method, path, **options) as answer:
            return answer


@pytest.fixture
def office(clean_redis_url: str, tmp_path: Path) -> Iterator[Office]:
    app = create_app(create_settings(clean_redis_url, data_dir=tmp_path))
    with run_api(app) as url:
        yield Office(app, url, clean_redis_url)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE"])
def test_every_answer_of_every_route_has_them(office: Office, method: str) -> None:
    walked = 0
    for path, _ in office.list_paths():
        for prefix in ("", "/v1"):
            answer = office.send(method, prefix + path)
            assert_complete(answer)
            assert answer.headers["cache-control"] == expect_caching(answer), prefix + path
            assert answer.status_code < 500
            walked += 1
    assert walked > 70


def test_so_do_the_files_of_pages_and_the_documentation(office: Office) -> None:
    for path in ("/docs/swagger-ui-bundle.js", "/docs/docs.js", "/docs/redoc.standalone.js"):
        answer = office.client.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")
        assert_complete(answer)
        known = {"If-None-Match": answer.headers["etag"]}
        again = office.client.get(path, headers=known)
        assert (again.status_code, again.content) == (304, b"")
        assert_complete(again)


def test_who_has_the_newest_status_is_told_so_as_before(office: Office) -> None:
    path = f"/status/{office.known['job_id']}"
    first = office.client.get(path)
    again = office.client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    for answer in (first, again):
        assert answer.headers["cache-control"] == "private, no-cache"
        assert_complete(answer)


def test_a_secret_and_what_a_stranger_uploaded_are_not_kept(office: Office) -> None:
    created = office.client.post("/webhooks", json={"url": "https://93.184.215.14/other"})
    rotated = office.client.post(f"/webhooks/{created.json()['webhook_id']}/rotate-secret")
    for answer in (created, rotated):
        assert "secret" in answer.json()
        assert answer.headers["cache-control"] == "no-store"
    for refused in (
        office.client.get("/admin/dead-letters", headers={"Authorization": "Bearer wrong"}),
        office.client.post("/webhooks", content=b"{}"),
    ):
        assert refused.status_code in (401, 415)
        assert refused.headers["cache-control"] == "no-store"


def test_refusals_before_any_route_have_them(office: Office) -> None:
    foreign = {"Origin": "https://evil.example"}
    for answer, status in [
        (office.client.get("/nothing"), 404),
        (office.client.get("/health", headers={"Host": "evil.example"}), 421),
        (office.client.post("/classify", headers=foreign), 403),
        (office.client.post("/classify"), 415),
        (office.client.get("/docs/nothing.js"), 404),
        (office.client.get("/docs/..%2f__init__.py"), 404),
    ]:
        assert answer.status_code == status
        assert_complete(answer)


def test_an_upload_has_them(office: Office) -> None:
    answer = submit(office.client)
    assert answer.status_code == 202
    assert_complete(answer)


# --- What goes wrong ------------------------------------------------------------------------------


def test_what_nobody_expected_has_them_and_can_be_read_by_allowed_pages(
    settings: Settings,
) -> None:
    opened = settings.model_copy(update={"cors": CorsSettings(origins=PAGE)})
    app = create_app(opened)
    with run_api(app) as url:
        app.state.service = None
        answer = httpx2.get(f"{url}/jobs", headers={"Origin": PAGE})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert_complete(answer, resource_policy="cross-origin")


def test_what_redis_is_needed_for_has_them_without_it(tmp_path: Path) -> None:
    away = create_settings("redis://127.0.0.1:1", data_dir=tmp_path)
    with run_api(create_app(away)) as url:
        for path in ("/health", "/jobs"):
            answer = httpx2.get(url + path)
            assert answer.status_code == 503
            assert_complete(answer)


def test_answers_to_pages_of_other_origins_may_be_read_there(settings: Settings) -> None:
    opened = settings.model_copy(update={"cors": CorsSettings(origins=PAGE)})
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    with run_api(create_app(opened)) as url:
        preflight = httpx2.options(f"{url}/classify", headers=asked)
        refused = httpx2.options(f"{url}/classify", headers=asked | {"Origin": "https://e.example"})
        for answer, status in (
            (preflight, 200),
            (refused, 400),
            (httpx2.get(f"{url}/jobs", headers={"Origin": PAGE}), 200),
        ):
            assert answer.status_code == status
            assert_complete(answer, resource_policy="cross-origin")


def test_an_answer_under_an_allowed_name_is_no_other(settings: Settings) -> None:
    named = settings.model_copy(update={"allowed": AllowedSettings(hosts="images.lan")})
    with run_api(create_app(named)) as url:
        assert_complete(httpx2.get(f"{url}/jobs", headers={"Host": "images.lan"}))
