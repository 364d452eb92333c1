"""Attacks by web pages: of names that lead here, in frames, of other origins, by forged headers."""

from tests.api_client import SAMPLE
from tests.attacks.attack import Attack
from tests.raw_request import RawAnswer, send_raw
from tests.service import RunningService

EVIL = ("Host", "evil.example")
LOCAL = ("Host", "localhost")
FORM = ("Content-Type", "multipart/form-data; boundary=x")
JSON = ("Content-Type", "application/json")

UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    + SAMPLE.read_bytes()
    + b"\r\n--x--\r\n"
)
WEBHOOK = b'{"url": "https://93.184.215.14/hook"}'


def rebind(service: RunningService) -> str:
    """As a page of evil.example whose name leads to loopback by now."""
    url = service.url
    job_id = send_raw(url, LOCAL, FORM, method="POST", path="/classify", body=UPLOAD).json()[
        "job_id"
    ]
    own = ("Origin", f"http://evil.example:{service.port}"), ("Sec-Fetch-Site", "same-origin")
    named = ("Host", f"evil.example:{service.port}")
    done = []
    for what, method, path, headers, body in (
        ("uploaded", "POST", "/classify", (FORM,), UPLOAD),
        ("listed", "GET", "/jobs", (), b""),
        ("read", "GET", f"/status/{job_id}", (), b""),
        ("saw the page", "GET", "/", (), b""),
        ("registered a webhook, secret in the answer", "POST", "/webhooks", (JSON,), WEBHOOK),
        ("erased", "DELETE", f"/jobs/{job_id}", (), b""),
    ):
        for host in (named, EVIL, ("Host", "localhost.evil.example")):
            answer = send_raw(url, host, *own, *headers, method=method, path=path, body=body)
            if answer.status != 421 and what not in done:
                done.append(what)
    assert not done, ", ".join(done)
    return "421 `misdirected-request`, six calls under three names"


def be_lenient(service: RunningService) -> str:
    """Requests whose host one parser reads otherwise than another."""
    cases: tuple[tuple[tuple[str, str], ...], ...] = (
        (),
        (LOCAL, LOCAL),
        (LOCAL, EVIL),
        (EVIL, LOCAL),
        *(
            (("Host", text),)
            for text in (
                "",
                "a@b/c",
                "localhost@evil.example",
                "localhost/evil",
                "localhost, evil.example",
                "localhost evil.example",
                "localhost:80:80",
                "localhost:99999",
                "::1",
                "[::1]evil",
                "127.1",
                "0x7f000001",
                "http://localhost",
            )
        ),
    )
    taken = [case for case in cases if send_raw(service.url, *case).status == 200]
    assert not taken, f"200 for {len(taken)} of {len(cases)}"
    return f"421, all {len(cases)}"


def frame(service: RunningService) -> str:
    """What another page may show in a frame, run, or make a script of."""
    open_to = []
    for path in ("/", "/docs", "/redoc", "/health", "/jobs", "/nothing", "/openapi.json"):
        answer = send_raw(service.url, LOCAL, path=path)
        policy = answer.headers.get("content-security-policy", "")
        if "frame-ancestors 'none'" not in policy:
            open_to.append(f"`{path}` in a frame")
        if b"<script>" in answer.body or "unsafe" in policy:
            open_to.append(f"script in the markup of `{path}`")
        if answer.headers.get("x-content-type-options") != "nosniff":
            open_to.append(f"`{path}` sniffed")
    created = send_raw(service.url, LOCAL, JSON, method="POST", path="/webhooks", body=WEBHOOK)
    if created.headers.get("cache-control") != "no-store":
        open_to.append("a webhook's secret kept by caches")
    assert not open_to, ", ".join(open_to)
    return "a policy, `nosniff` and Cache-Control on every answer; no script in markup"


def cross_origins(service: RunningService) -> str:
    """As pages that differ from the service's own in scheme or port alone, over plain HTTP."""

    def upload(host: str, origin: str) -> RawAnswer:
        headers = (("Host", host), ("Origin", origin), FORM)
        return send_raw(service.url, *headers, method="POST", path="/classify", body=UPLOAD)

    own = f"127.0.0.1:{service.port}"
    assert upload(own, f"http://{own}").status == 202, "the own page can't upload"
    taken = [
        f"{origin} → {host}"
        for host, origin in (
            (own, f"https://{own}"),
            (own, "http://127.0.0.1:1"),
            (own, "http://127.0.0.1"),
            ("localhost", "https://localhost"),
            ("localhost:443", "https://localhost"),
            ("localhost", "null"),
            (own, f"ftp://{own}"),
        )
        if upload(host, origin).status != 403
    ]
    assert not taken, f"202 for {len(taken)} of 7: {', '.join(taken)}"
    return "403 `cross-origin`, all seven"


FORGED = (
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "localhost"),
    ("X-Forwarded-Prefix", "//evil.example"),
    ("Forwarded", 'for=127.0.0.1;proto=https;host="localhost"'),
)


def forge(service: RunningService) -> str:
    """As a client that claims to be a proxy."""
    url = service.url
    assert send_raw(url, EVIL, *FORGED).status == 421, "served as evil.example"
    accepted = send_raw(url, LOCAL, *FORGED, FORM, method="POST", path="/classify", body=UPLOAD)
    location = accepted.headers.get("location", "")
    assert location.startswith("/status/"), f"sent on to {location}"
    origin = ("Origin", "https://localhost")
    foreign = send_raw(
        url, LOCAL, *FORGED, origin, FORM, method="POST", path="/classify", body=UPLOAD
    )
    assert foreign.status == 403, "taken for a page of another scheme"
    return "ignored"


def forge_through_a_proxy(service: RunningService) -> str:
    """As a client of a trusted proxy that adds its words behind those that the client wrote."""
    url = service.url
    behind = (
        ("X-Forwarded-Host", "localhost, evil.example"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Prefix", "/img"),
    )
    assert send_raw(url, LOCAL, *behind).status == 421, "served as evil.example"
    accepted = send_raw(url, LOCAL, *behind[1:], FORM, method="POST", path="/classify", body=UPLOAD)
    location = accepted.headers.get("location", "")
    assert location.startswith("/img/status/"), f"sent on to {location}"
    for prefix in ("//evil.example", "/\\evil.example", "https://evil.example", "/.."):
        header = ("X-Forwarded-Prefix", prefix)
        answer = send_raw(url, LOCAL, header, FORM, method="POST", path="/classify", body=UPLOAD)
        assert answer.headers.get("location", "").startswith("/status/"), f"led to {prefix}"
    return "the proxy's words alone count"


ATTACKS = (
    Attack(
        "dns-rebinding",
        "DNS rebinding: a page of evil.example, whose name leads to loopback",
        "uploaded, listed, read, saw the page, registered a webhook (secret in the answer), erased",
        rebind,
    ),
    Attack(
        "host-leniency",
        "No Host, two, and what parsers read in different ways (`a@b/c`)",
        "200 for 17 of 17",
        be_lenient,
    ),
    Attack(
        "clickjacking",
        "The documentation in a frame, script in its markup, sniffed and cached answers",
        "`/docs` and `/redoc` in a frame, with scripts in the markup; a secret kept by caches",
        frame,
    ),
    Attack(
        "cross-origin-parts",
        "Pages of another scheme or port, which the browser does not label",
        "202 for those of another scheme",
        cross_origins,
    ),
    Attack(
        "forged-forwarding",
        "A client that claims to be a proxy",
        "served as evil.example",
        forge,
    ),
    Attack(
        "forged-behind-a-proxy",
        "A client that writes what a trusted proxy adds to",
        "served as evil.example",
        forge_through_a_proxy,
        {"TRUSTED_PROXIES": "127.0.0.0/8"},
    ),
)
