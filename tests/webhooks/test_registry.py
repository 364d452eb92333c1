"""Webhooks and deliveries over HTTP."""

import base64
import threading
from datetime import datetime

import pytest

from app.core import keys
from app.core.config import WebhookSettings
from app.core.config import Settings
from app.main import create_app
from tests.api_client import assert_problem
from tests.api_server import run_api
from tests.webhooks.post_office import HOUR_MS, PostOffice, run_sender
from tests.webhooks.receiver import Reply, run_receiver
from examples.webhook_receiver import VerificationError, verify

URL = "https://example.com/hooks"
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
DAY_MS = 86_400_000
JSON = {"Content-Type": "application/json"}


def test_a_webhook_is_registered_shown_without_its_secret_and_deleted(office: PostOffice) -> None:
    answer = office.client.post("/webhooks", json={"url": URL, "events": ["job.failed"]})
    document = answer.json()
    secret = document.pop("secret")
    assert answer.headers["location"] == f"/webhooks/{document['webhook_id']}"
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64
    assert (document["url"], document["events"]) == (URL, ["job.failed"])
    assert document["enabled"] is True
    path = f"/webhooks/{document['webhook_id']}"
    assert office.client.get(path).json() == document
    assert office.client.get("/webhooks").json() == {"webhooks": [document]}
    assert office.client.delete(path).status_code == 204
    assert_problem(office.client.get(path), 404, "webhook-not-found")
    assert_problem(office.client.delete(path), 404, "webhook-not-found")
    assert office.client.get("/webhooks").json() == {"webhooks": []}


def test_links_keep_the_version(office: PostOffice) -> None:
    answer = office.client.post("/v1/webhooks", json={"url": URL})
    assert answer.headers["location"] == f"/v1/webhooks/{answer.json()['webhook_id']}"


def test_everything_is_told_unless_events_are_named(office: PostOffice) -> None:
    document = office.client.post("/webhooks", json={"url": URL}).json()
    kinds = ["job.completed", "job.failed", "job.cancelled", "batch.completed", "batch.cancelled"]
    assert document["events"] == kinds


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad-request"),
        (b"{", 400, "bad-request"),
        (b"[]", 422, "invalid-request"),
        (b"{}", 422, "invalid-request"),
        (b'{"url": 5}', 422, "invalid-request"),
        (b'{"url": "https://example.com", "events": []}', 422, "invalid-request"),
        (b'{"url": "https://example.com", "events": ["job.born"]}', 422, "invalid-request"),
        (b'{"url": "https://example.com", "secret": "mine"}', 422, "invalid-request"),
        (b'{"url": "' + b"x" * 20_000 + b'"}', 422, "invalid-request"),
    ],
)
def test_what_can_not_be_meant_is_refused(
    office: PostOffice, body: bytes, status: int, code: str
) -> None:
    answer = office.client.post("/webhooks", content=body, headers=JSON)
    assert_problem(answer, status, code)
    assert office.client.get("/webhooks").json() == {"webhooks": []}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_what_any_web_page_may_send_registers_nothing(office: PostOffice, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    body = b'{"url": "https://evil.example/hook"}'
    answer = office.client.post("/webhooks", content=body, headers=headers)
    assert_problem(answer, 415, "not-json")
    labelled = headers | {"Origin": "https://evil.example"}
    answer = office.client.post("/webhooks", content=body, headers=labelled)
    assert_problem(answer, 403, "cross-origin")
    assert office.client.get("/webhooks").json() == {"webhooks": []}


def test_json_may_say_its_charset(office: PostOffice) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    body = b'{"url": "https://example.com/hook"}'
    assert office.client.post("/webhooks", content=body, headers=headers).status_code == 201


def test_there_are_only_so_many(settings: Settings) -> None:
    settings = settings.model_copy(update={"webhook": WebhookSettings(max_endpoints=2)})
    with run_api(create_app(settings)) as url:
        office = PostOffice(url, settings)
        first = office.register(URL)["webhook_id"]
        office.register(URL)
        answer = office.client.post("/webhooks", json={"url": URL})
        assert_problem(answer, 409, "too-many-webhooks")
        office.client.delete(f"/webhooks/{first}")
        office.register(URL)


def test_a_wrong_method_is_told_the_right_ones(office: PostOffice) -> None:
    for path, methods in [("", "GET, HEAD, POST"), (f"/{UNKNOWN_ID}", "DELETE, GET, HEAD")]:
        answer = office.client.put(f"/webhooks{path}")
        assert_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == methods


def test_both_secrets_sign_for_a_day_after_a_rotation(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        document = post_office.register(receiver.url)
        path = f"/webhooks/{document['webhook_id']}/rotate-secret"
        answer = post_office.client.post(path)
        assert answer.json()["webhook_id"] == document["webhook_id"]
        new, old = answer.json()["secret"], document["secret"]
        assert new != old
        post_office.complete()
        request = receiver.next()
        assert len(request.headers["webhook-signature"].split()) == 2
        request.verify(new)
        request.verify(old)
        let_secrets_grow_old(post_office, document["webhook_id"])
        post_office.complete()
        request = receiver.next()
    assert len(request.headers["webhook-signature"].split()) == 1
    request.verify(new)
    with pytest.raises(VerificationError):
        verify(old, request.headers, request.body)


def let_secrets_grow_old(office: PostOffice, webhook_id: str) -> None:
    """As if the day after the rotation was over."""
    key = f"classifier:webhook:{webhook_id}"
    secret, _, until_ms = office.redis.hget(key, "former").decode().partition(":")
    office.redis.hset(key, "former", f"{secret}:{int(until_ms) - DAY_MS}")


def test_a_secret_of_no_webhook_is_not_rotated(office: PostOffice) -> None:
    answer = office.client.post(f"/webhooks/{UNKNOWN_ID}/rotate-secret")
    assert_problem(answer, 404, "webhook-not-found")


def test_a_delivery_is_sent_again_on_request(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        secret = post_office.register(receiver.url)["secret"]
        post_office.complete()
        first = receiver.next()
        post_office.wait_for_end(first.id)
        answer = post_office.client.post(f"/webhooks/deliveries/{first.id}/replay")
        assert (answer.status_code, answer.json()["delivery_id"]) == (202, first.id)
        second = receiver.next()
        delivery = post_office.wait_for_attempts(first.id, 2)
    second.verify(secret)
    assert (second.id, second.body) == (first.id, first.body)
    assert delivery["status"] == "delivered"
    assert [attempt["attempt"] for attempt in delivery["attempts"]] == [1, 2]


def test_one_that_waits_is_sent_at_once_on_request(post_office: PostOffice) -> None:
    with run_receiver(Reply(500), Reply()) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        delivery_id = receiver.next().id
        post_office.wait_for_attempts(delivery_id, 1)
        post_office.client.post(f"/webhooks/deliveries/{delivery_id}/replay")
        assert receiver.next().id == delivery_id
        assert post_office.wait_for_end(delivery_id)["status"] == "delivered"


def test_one_that_waits_gets_all_its_retries_on_request(post_office: PostOffice) -> None:
    with run_receiver(Reply(500)) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        delivery_id = receiver.next().id
        post_office.wait_for_attempts(delivery_id, 1)
        for count in range(2, 4):
            post_office.let_time_pass(HOUR_MS)
            post_office.wait_for_attempts(delivery_id, count)
        post_office.client.post(f"/webhooks/deliveries/{delivery_id}/replay")
        delivery = post_office.wait_for_attempts(delivery_id, 4)
    started = datetime.fromisoformat(delivery["attempts"][-1]["started_at"])
    pause = datetime.fromisoformat(delivery["next_attempt_at"]) - started
    assert pause.total_seconds() < 60  # after a fourth failure it would be two hours


@pytest.mark.parametrize("first", [204, 500])
def test_one_that_is_being_sent_is_sent_again_on_request(
    post_office: PostOffice, first: int
) -> None:
    gate = threading.Event()
    with run_receiver(Reply(first, after=gate), Reply()) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        delivery_id = receiver.next().id
        answer = post_office.client.post(f"/webhooks/deliveries/{delivery_id}/replay")
        assert answer.status_code == 202
        gate.set()
        assert receiver.next().id == delivery_id
        delivery = post_office.wait_for_attempts(delivery_id, 2)
        assert post_office.wait_for_end(delivery_id)["status"] == "delivered"
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [first, 204]
    assert receiver.is_quiet()


def test_a_receiver_that_asked_for_silence_is_sent_to_on_request(post_office: PostOffice) -> None:
    with run_receiver(Reply(503, {"Retry-After": "3600"}), Reply()) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        delivery_id = receiver.next().id
        post_office.wait_for_attempts(delivery_id, 1)
        post_office.client.post(f"/webhooks/deliveries/{delivery_id}/replay")
        assert receiver.next().id == delivery_id
        assert post_office.wait_for_end(delivery_id)["status"] == "delivered"


def test_deliveries_are_listed_newest_first_by_pages_and_by_webhook(
    post_office: PostOffice,
) -> None:
    with run_receiver() as one, run_receiver() as two:
        first = post_office.register(one.url)["webhook_id"]
        jobs = [post_office.complete()]
        one.next()
        second = post_office.register(two.url)["webhook_id"]
        for _ in range(3):
            jobs.append(post_office.complete())
            one.next()
            two.next()
    listed, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = post_office.client.get("/webhooks/deliveries", params=query).json()
        listed += page["deliveries"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["deliveries"]) == 2
    assert len({item["delivery_id"] for item in listed}) == len(listed) == 7
    by_webhook = {
        webhook_id: [item["job_id"] for item in listed if item["webhook_id"] == webhook_id]
        for webhook_id in (first, second)
    }
    assert by_webhook == {first: jobs[::-1], second: jobs[:0:-1]}
    assert [item["job_id"] for item in post_office.deliveries(webhook_id=second)] == jobs[:0:-1]
    assert post_office.deliveries(webhook_id=UNKNOWN_ID) == []


def test_expired_deliveries_leave_no_gaps_in_the_list(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        webhook_id = post_office.register(receiver.url)["webhook_id"]
        ids = []
        for _ in range(5):
            post_office.complete()
            ids.append(receiver.next().id)
            post_office.wait_for_end(ids[-1])
    for delivery_id in ids[1:4]:
        post_office.redis.delete(keys.DELIVERY + delivery_id)
    page = post_office.client.get("/webhooks/deliveries", params={"limit": 2}).json()
    assert [item["delivery_id"] for item in page["deliveries"]] == [ids[4], ids[0]]
    assert page["next_cursor"] is None
    assert post_office.redis.zcard(keys.WEBHOOK_LOG + webhook_id) == 2


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=-1"])
def test_a_page_that_can_not_be_meant_is_refused(office: PostOffice, query: str) -> None:
    answer = office.client.get(f"/webhooks/deliveries?{query}")
    problem = assert_problem(answer, 422, "invalid-request")
    assert problem["detail"].startswith(query.partition("=")[0])


def test_an_unknown_delivery_is_not_found(office: PostOffice) -> None:
    path = "/webhooks/deliveries/msg_nonsense"
    assert_problem(office.client.get(path), 404, "delivery-not-found")
    assert_problem(office.client.post(f"{path}/replay"), 404, "delivery-not-found")


def test_the_log_is_cut_and_ended_deliveries_expire(office: PostOffice) -> None:
    webhook = WebhookSettings(allowed_networks="127.0.0.1/32", log_length=2, log_ttl=60)
    settings = office.settings.model_copy(update={"webhook": webhook})
    with run_receiver() as receiver, run_sender(settings):
        office.register(receiver.url)
        jobs = []
        for _ in range(4):
            jobs.append(office.complete())
            office.wait_for_end(receiver.next().id)
        assert [item["job_id"] for item in office.deliveries()] == jobs[:1:-1]
    records = office.redis.keys("classifier:delivery:*")
    assert len(records) == 2
    assert all(0 < office.redis.ttl(record) <= 60 for record in records)
