"""What holds for every call: the version's prefix, compression, pages of other origins."""

import gzip
import json
from collections.abc import Iterator

import httpx2
import pytest
from httpx2 import Client

from app.core.config import AllowedSettings, CorsSettings, Settings
from app.main import create_app
from app.openapi_document import DOCUMENT_PATH, render_document
from tests.api_client import SAMPLE, assert_problem, submit
from tests.api_server import run_api

PAGE = "https://app.example.org"


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


@pytest.fixture
def open_client(settings: Settings) -> Iterator[Client]:
    opened = settings.model_copy(update={"cors": CorsSettings(origins=f"http://other, {PAGE}")})
    with run_api(create_app(opened)) as url, Client(base_url=url) as client:
        yield client


# --- /v1 ------------------------------------------------------------------------------------------


def test_every_call_is_there_under_the_version_too(client: Client) -> None:
    versioned = Client(base_url=f"{client.base_url}/v1")
    answer = submit(versioned)
    job_id = answer.json()["job_id"]
    assert answer.status_code == 202
    assert versioned.get(f"/status/{job_id}").json() == client.get(f"/status/{job_id}").json()
    assert versioned.get("/health").json()["redis_connected"] is True
    assert versioned.get("/docs").status_code == 200


def test_links_stay_under_the_prefix_that_the_client_uses(client: Client) -> None:
    job_id = submit(Client(base_url=f"{client.base_url}/v1")).json()["job_id"]
    pending = client.get(f"/v1/result/{job_id}")
    assert pending.headers["location"] == f"/v1/status/{job_id}"
    assert client.get(pending.headers["location"]).json()["job_id"] == job_id
    assert client.get(f"/result/{job_id}").headers["location"] == f"/status/{job_id}"


@pytest.mark.parametrize("path", ["/v1", "/v2/health", "/v1/v1/health", "/v1health", "/v1/nothing"])
def test_there_is_nothing_else_under_it(client: Client, path: str) -> None:
    assert_problem(client.get(path), 404, "not-found")


# --- compression ----------------------------------------------------------------------------------


def test_large_answers_are_compressed_for_those_who_can_read_that(client: Client) -> None:
    with client.stream("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in answer.headers["vary"].lower()
    plain = client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert json.loads(gzip.decompress(packed)) == plain.json()
    assert len(packed) * 4 < len(plain.content)


def test_small_answers_are_left_as_they_are(client: Client) -> None:
    answer = client.get("/health", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


# --- other origins --------------------------------------------------------------------------------


def test_pages_of_other_origins_are_not_allowed_unless_told(client: Client) -> None:
    answer = client.get("/health", headers={"Origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers


def test_an_allowed_page_may_upload_and_read_what_it_needs(open_client: Client) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "idempotency-key,prefer",
    }
    leave = open_client.options("/classify", headers=asked)
    assert leave.status_code == 200
    assert leave.headers["access-control-allow-origin"] == PAGE
    answer = open_client.get("/health", headers={"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"location", "retry-after", "etag"} <= set(exposed.replace(" ", "").split(","))


def test_its_errors_can_be_read_too(open_client: Client) -> None:
    answer = open_client.post("/classify", headers={"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert_problem(answer, 415, "not-multipart")


def test_another_page_may_not(open_client: Client) -> None:
    answer = open_client.get("/health", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "labels",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
)
def test_nor_may_it_upload_or_change_anything(
    client: Client, open_client: Client, labels: dict[str, str]
) -> None:
    for asked in (client, open_client):
        refused = asked.post("/v1/classify", files={"file": SAMPLE.read_bytes()}, headers=labels)
        assert_problem(refused, 403, "cross-origin")
        assert_problem(
            asked.delete("/jobs/0d1bfe2a-57f8-4c0e-9f43-3f6c6f6b7a10", headers=labels),
            403,
            "cross-origin",
        )
        assert asked.get("/jobs", headers=labels).json()["jobs"] == []


def test_pages_of_the_service_itself_and_programs_may(client: Client) -> None:
    own = f"http://{client.base_url.netloc.decode()}"
    for labels in (
        {},
        {"Origin": own},
        {"Origin": "https://behind.a.proxy", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        answer = client.post("/classify", files={"file": SAMPLE.read_bytes()}, headers=labels)
        assert answer.status_code == 202


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", "http://localhost", 202),
        ("localhost", "http://localhost:80", 202),
        ("localhost:80", "http://localhost", 202),
        ("LOCALHOST", "http://localhost", 202),
        ("[::1]:8000", "http://[::1]:8000", 202),
        ("localhost:8000", "http://localhost:8000", 202),
        ("localhost:8000", "https://localhost:8000", 403),
        ("localhost:8000", "http://localhost:8001", 403),
        ("localhost:8000", "http://localhost", 403),
        ("localhost", "http://localhost:8000", 403),
        ("localhost:443", "https://localhost", 403),
        ("localhost", "https://localhost", 403),
        ("localhost", "ftp://localhost", 403),
        ("localhost", "http://localhost/", 403),
        ("localhost", "http://a@localhost", 403),
        ("localhost", "localhost", 403),
        ("localhost", "http://", 403),
        ("localhost", "", 403),
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(
    client: Client, host: str, origin: str, status: int
) -> None:
    labels = {"Host": host, "Origin": origin}
    answer = client.post("/classify", files={"file": SAMPLE.read_bytes()}, headers=labels)
    assert answer.status_code == status


def test_the_own_page_behind_a_proxy_is_told_what_the_proxy_must_do(
    client: Client, settings: Settings
) -> None:
    """Over plain HTTP nothing but the origin tells; nginx sends the upstream's name as Host."""

    def upload(asked: Client, labels: dict[str, str]) -> httpx2.Response:
        files = {"file": SAMPLE.read_bytes()}
        return asked.post("/classify", files=files, headers={"Origin": "http://box.lan"} | labels)

    for labels in ({}, {"X-Forwarded-Host": "box.lan"}):
        document = assert_problem(upload(client, labels), 403, "cross-origin")
        assert "a reverse proxy must pass the Host header on" in document["detail"]
        assert "name this origin in CORS_ORIGINS" in document["detail"]
    allowed = settings.model_copy(update={"allowed": AllowedSettings(hosts="box.lan")})
    with run_api(create_app(allowed)) as url, Client(base_url=url) as asked:
        assert upload(asked, {"Host": "box.lan"}).status_code == 202
    named = settings.model_copy(update={"cors": CorsSettings(origins="http://box.lan")})
    with run_api(create_app(named)) as url, Client(base_url=url) as asked:
        assert upload(asked, {}).status_code == 202


def test_an_origin_that_is_named_may_upload(open_client: Client) -> None:
    labels = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    answer = open_client.post("/classify", files={"file": SAMPLE.read_bytes()}, headers=labels)
    assert answer.status_code == 202


@pytest.mark.parametrize("text", ["app.example.org", "https://app.example.org/", "https://a b"])
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        CorsSettings(origins=text)


# --- the contract as a file -----------------------------------------------------------------------


def test_the_contract_in_docs_is_that_of_the_code() -> None:
    assert DOCUMENT_PATH.read_text(encoding="utf-8") == render_document(), "run make docs"


def test_it_names_the_version_and_where_it_is_served(client: Client) -> None:
    document = json.loads(render_document())
    assert document["info"]["version"] == create_app(Settings()).version
    for server in document["servers"]:
        url = httpx2.URL(str(client.base_url)).join(server["url"].rstrip("/") + "/health")
        assert client.get(url).status_code == 200
