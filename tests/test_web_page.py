"""The web page's files over HTTP: small, cached, and nothing from anywhere else."""

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
from httpx2 import Client

from app.core.config import Settings
from app.main import create_app
from tests.api_client import assert_problem
from tests.api_server import run_api

FILES = {
    file.name: file.read_bytes()
    for file in files("app.web").iterdir()
    if file.name.endswith((".html", ".css", ".js", ".svg"))
}


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


def test_the_page_is_at_the_root_and_the_documentation_stays(client: Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == FILES["index.html"]
    assert "swagger" in client.get("/docs").text
    assert "/" not in client.get("/openapi.json").json()["paths"]


def test_everything_that_the_page_names_is_there(client: Client) -> None:
    named = set(re.findall(r'(?:src|href)="web/([^"]+)"', FILES["index.html"].decode()))
    for name, content in FILES.items():
        if name.endswith(".js"):
            named |= set(re.findall(r'from "\./([^"]+)"', content.decode()))
    assert named == set(FILES) - {"index.html"}
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in named:
        answer = client.get(f"/web/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_is_no_file_of_the_page_is_not_served(client: Client) -> None:
    for path in ("/web/__init__.py", "/web/..%2fmain.py", "/web/nothing.js", "/web/"):
        assert_problem(client.get(path), 404, "not-found")


def test_a_browser_that_has_the_file_is_not_sent_it_again(client: Client) -> None:
    first = client.get("/web/page.css")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/web/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/web/page.css", headers={"If-None-Match": '"another"'})
    assert other.content == FILES["page.css"]
    assert client.head("/").status_code == 200


@pytest.mark.parametrize("path", ["/", "/web/work.js", "/web/icon.svg"])
def test_the_tag_promises_no_more_than_that_both_forms_mean_the_same(
    client: Client, path: str
) -> None:
    """Packed or plain, the bytes differ: a strong tag would be another one for each (RFC 9110)."""
    forms = [
        client.get(path, headers={"Accept-Encoding": coding}) for coding in ("gzip", "identity")
    ]
    tag = forms[0].headers["etag"]
    assert tag == forms[1].headers["etag"]
    assert tag.startswith('W/"')
    for known in (tag, tag.removeprefix("W/"), f'"another", {tag}', "*"):
        assert client.get(path, headers={"If-None-Match": known}).status_code == 304


def test_the_policy_allows_the_page_itself_and_nothing_else(client: Client) -> None:
    policy = client.get("/").headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    allowed = {source for sources in directives.values() for source in sources.split()}
    assert allowed == {"'none'", "'self'", "'script'", "data:"}
    assert "data:" not in directives["script-src"]


def test_the_page_is_small_and_names_no_other_host() -> None:
    scripts = [content for name, content in FILES.items() if name.endswith(".js")]
    assert sum(map(len, scripts)) < 40_000
    for name, content in FILES.items():
        addresses = set(re.findall(rb"(?:https?:)?//[\w-]+\.[\w.-]+[^\s\"']*", content))
        # A name space, which nobody fetches.
        assert addresses <= {b"http://www.w3.org/2000/svg"}, name
        assert b" style=" not in content and b"onclick=" not in content
