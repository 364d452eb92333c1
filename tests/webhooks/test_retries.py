"""What follows when a receiver does not take an event."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from app.core import keys
from app.webhooks.sending.retry_schedule import (
    LONGEST_SILENCE_SECONDS,
    RETRY_SECONDS,
    find_delay,
    read_retry_after,
)
from tests.service import find_free_port, wait_until
from tests.webhooks.post_office import HOUR_MS, PostOffice, run_sender
from tests.webhooks.receiver import Reply, Request, run_receiver


def pause_of(delivery: dict[str, Any]) -> float:
    """Seconds from the last attempt to the next."""
    *_, last = delivery["attempts"]
    due = datetime.fromisoformat(delivery["next_attempt_at"])
    return (due - datetime.fromisoformat(last["started_at"])).total_seconds()


def is_about(pause: float, seconds: float) -> bool:
    """Within the jitter, and what an attempt takes."""
    return 0.8 * seconds - 1 <= pause <= 1.2 * seconds + 5


def test_an_error_is_tried_again_under_the_same_id_and_the_same_words(
    post_office: PostOffice,
) -> None:
    with run_receiver(Reply(500), Reply(404), Reply(204)) as receiver:
        secret = post_office.register(receiver.url)["secret"]
        post_office.complete()
        first = receiver.next()
        delivery = post_office.wait_for_attempts(first.id, 1)
        assert (delivery["status"], delivery["attempts"][0]["status_code"]) == ("pending", 500)
        assert is_about(pause_of(delivery), 5)
        post_office.let_time_pass(10_000)
        second = receiver.next()
        delivery = post_office.wait_for_attempts(first.id, 2)
        assert is_about(pause_of(delivery), 300)
        post_office.let_time_pass(400_000)
        third = receiver.next()
        delivery = post_office.wait_for_end(first.id)
    for request in (first, second, third):
        request.verify(secret)
    assert first.id == second.id == third.id
    assert first.body == second.body == third.body
    assert delivery["status"] == "delivered"
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [500, 404, 204]


def test_an_event_is_given_up_after_ten_attempts_over_three_days(post_office: PostOffice) -> None:
    with run_receiver(Reply(500)) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        delivery_id = receiver.next().id
        for number, seconds in enumerate(RETRY_SECONDS, 1):
            delivery = post_office.wait_for_attempts(delivery_id, number)
            assert is_about(pause_of(delivery), seconds)
            post_office.let_time_pass(int(seconds * 1300) + 6000)
            assert receiver.next().id == delivery_id
        delivery = post_office.wait_for_end(delivery_id)
    assert (delivery["status"], delivery["reason"]) == ("failed", "attempts-exhausted")
    assert len(delivery["attempts"]) == 10
    assert sum(RETRY_SECONDS) == 272_105  # three days, three and a half hours


def test_pauses_differ() -> None:
    delays = {find_delay(1) for _ in range(20)}
    assert len(delays) > 1
    assert all(delay is not None and 240 <= delay <= 360 for delay in delays)
    assert find_delay(9) is None


def test_a_receiver_that_does_not_answer_is_given_its_time_and_no_more(
    office: PostOffice,
) -> None:
    webhook = office.settings.webhook.model_copy(update={"timeout_seconds": 0.5})
    settings = office.settings.model_copy(update={"webhook": webhook})
    never = threading.Event()
    with run_receiver(Reply(after=never)) as receiver, run_sender(settings):
        office.register(receiver.url)
        office.complete()
        delivery = office.wait_for_attempts(office.only_delivery(), 1)
        never.set()
    (attempt,) = delivery["attempts"]
    assert (attempt["error"], attempt["status_code"]) == ("timed-out", None)
    assert attempt["duration_ms"] >= 500
    assert delivery["status"] == "pending"


def test_an_answer_without_end_is_not_read(post_office: PostOffice) -> None:
    with run_receiver(Reply(200, body=b"x" * 5_000_000)) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        delivery = post_office.wait_for_end(receiver.next().id)
    assert delivery["status"] == "delivered"
    assert "xxx" not in str(delivery)


@pytest.mark.parametrize(("status", "end"), [(200, "delivered"), (410, "failed")])
def test_the_status_counts_even_if_the_rest_never_comes(
    office: PostOffice, status: int, end: str
) -> None:
    webhook = office.settings.webhook.model_copy(update={"timeout_seconds": 0.5})
    settings = office.settings.model_copy(update={"webhook": webhook})
    never = threading.Event()
    reply = Reply(status, body=b"ok", body_after=never)
    with run_receiver(reply) as receiver, run_sender(settings):
        office.register(receiver.url)
        office.complete()
        delivery = office.wait_for_attempts(receiver.next().id, 1)
        never.set()
    (attempt,) = delivery["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (status, None)
    assert delivery["status"] == end


def test_gone_disables_the_webhook_and_ends_what_waits(post_office: PostOffice) -> None:
    with run_receiver(Reply(500), Reply(410)) as receiver:
        webhook_id = post_office.register(receiver.url)["webhook_id"]
        post_office.complete()
        first = receiver.next().id
        post_office.wait_for_attempts(first, 1)
        post_office.complete()
        second = receiver.next().id
        assert post_office.wait_for_end(second)["reason"] == "webhook-disabled"
        assert post_office.wait_for_end(first)["reason"] == "webhook-disabled"
        assert post_office.client.get(f"/webhooks/{webhook_id}").json()["enabled"] is False
        post_office.complete()
        replay = post_office.client.post(f"/webhooks/deliveries/{first}/replay")
        assert (replay.status_code, replay.json()["code"]) == (409, "webhook-disabled")
        assert receiver.is_quiet()
    assert len(post_office.deliveries()) == 2


def test_what_is_under_way_when_a_webhook_is_disabled_ends_as_it_ends(
    post_office: PostOffice,
) -> None:
    gate = threading.Event()
    with run_receiver(Reply(204, after=gate), Reply(410), Reply(204)) as receiver:
        webhook_id = post_office.register(receiver.url)["webhook_id"]
        post_office.complete()
        slow = receiver.next().id
        post_office.complete()
        assert post_office.wait_for_end(receiver.next().id)["reason"] == "webhook-disabled"
        with run_receiver() as other:
            # The sender has looked at what is due since.
            post_office.register(other.url)
            post_office.complete()
            post_office.wait_for_end(other.next().id)
        assert post_office.client.get(f"/webhooks/{webhook_id}").json()["enabled"] is False
        assert post_office.delivery(slow)["status"] == "pending"
        gate.set()
        delivery = post_office.wait_for_end(slow)
        wait_until(lambda: not post_office.redis.exists(keys.WEBHOOKS_DUE))
    assert (delivery["status"], delivery["reason"]) == ("delivered", None)
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [204]


def test_what_nobody_reports_on_when_a_webhook_is_disabled_has_failed(
    post_office: PostOffice,
) -> None:
    never = threading.Event()
    with run_receiver(Reply(204, after=never), Reply(410)) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        lost = receiver.next().id
        post_office.complete()
        post_office.wait_for_end(receiver.next().id)
        post_office.let_time_pass(HOUR_MS)
        assert post_office.wait_for_end(lost)["reason"] == "webhook-disabled"
        never.set()


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_receiver_that_asks_for_silence_gets_it(post_office: PostOffice, status: int) -> None:
    with run_receiver(Reply(status, {"Retry-After": "1800"}), Reply()) as receiver:
        post_office.register(receiver.url)
        post_office.complete()
        first = receiver.next().id
        delivery = post_office.wait_for_attempts(first, 1)
        assert 1799 <= pause_of(delivery) <= 1805
        post_office.complete()
        wait_until(lambda: len(post_office.deliveries()) == 2)
        second = post_office.deliveries()[0]["delivery_id"]
        post_office.let_time_pass(1_790_000)
        with run_receiver() as other:
            # What is due somewhere else goes on, and shows that the sender has looked.
            post_office.register(other.url)
            post_office.complete()
            other.next()
        assert receiver.is_quiet()
        post_office.let_time_pass(20_000)
        seen = {receiver.next().id for _ in range(3)}
    assert {first, second} < seen


def test_nobody_asks_for_more_silence_than_a_day() -> None:
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    assert 3590 <= read_retry_after(format_datetime(in_an_hour, usegmt=True)) <= 3600
    assert read_retry_after("120") == 120
    assert read_retry_after("99999999") == LONGEST_SILENCE_SECONDS
    past, endless = "Thu, 01 Jan 1970 00:00:00 GMT", f"Thu, 01 Jan {'9' * 20} 00:00:00 GMT"
    for nonsense in ("", "-5", "soon", "1.5", "\u00b2", past, endless):
        assert read_retry_after(nonsense) == 0


def test_a_redirect_is_not_followed(post_office: PostOffice) -> None:
    with run_receiver() as elsewhere:
        headers = {"Location": elsewhere.url, "Retry-After": "1800"}
        with run_receiver(Reply(302, headers)) as receiver:
            post_office.register(receiver.url)
            post_office.complete()
            delivery = post_office.wait_for_attempts(receiver.next().id, 1)
        assert elsewhere.is_quiet()
    (attempt,) = delivery["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (302, "redirect-refused")
    assert is_about(pause_of(delivery), 5)
    assert delivery["status"] == "pending"


def test_a_receiver_that_was_down_for_an_hour_gets_everything(post_office: PostOffice) -> None:
    port = find_free_port()
    post_office.register(f"http://127.0.0.1:{port}/")
    ids = {post_office.complete() for _ in range(20)}

    def attempts() -> list[dict[str, Any]]:
        return [note for delivery in post_office.deliveries() for note in delivery["attempts"]]

    # Of those that fail in a row each is followed by a longer pause, so most are not tried at all.
    wait_until(lambda: len(attempts()) > 8)
    assert {note["error"] for note in attempts()} == {"connection-failed"}
    begun = sorted(datetime.fromisoformat(note["started_at"]) for note in attempts())
    assert (begun[8] - begun[7]).total_seconds() >= 0.79
    assert len(post_office.deliveries()) == 20
    with run_receiver() as receiver:
        # The address that was down leads to somebody who listens.
        for key in post_office.redis.keys(keys.WEBHOOK + "*"):
            post_office.redis.hset(key, "url", receiver.url)
        post_office.let_time_pass(HOUR_MS)
        told = [receiver.next() for _ in ids]
        wait_until(lambda: not post_office.redis.exists(keys.WEBHOOKS_DUE))
    assert {request.event["data"]["job_id"] for request in told} == ids
    assert {delivery["status"] for delivery in post_office.deliveries()} == {"delivered"}


def test_a_slow_receiver_keeps_only_its_own_places_busy(post_office: PostOffice) -> None:
    never = threading.Event()
    with run_receiver(Reply(after=never)) as slow, run_receiver() as quick:
        post_office.register(slow.url)
        post_office.register(quick.url)
        ids = {post_office.complete() for _ in range(40)}
        told = {quick.next().event["data"]["job_id"] for _ in ids}
        never.set()
    assert told == ids
    # And the jobs went on as if nobody was told.
    assert not post_office.redis.exists(keys.QUEUE)


def test_a_receiver_that_fails_is_tried_one_by_one(office: PostOffice) -> None:
    at_once: list[int] = []
    lock = threading.Lock()
    open_requests = 0

    def respond(_: Request) -> Reply:
        nonlocal open_requests
        with lock:
            open_requests += 1
            at_once.append(open_requests)
        gate = threading.Event()

        def let_go() -> None:
            nonlocal open_requests
            with lock:
                open_requests -= 1
            gate.set()

        threading.Timer(0.02, let_go).start()
        return Reply(500, after=gate)

    with run_receiver() as receiver:
        receiver.respond = respond
        webhook_id = office.register(receiver.url)["webhook_id"]
        office.redis.hset(keys.WEBHOOK + webhook_id, "failing", 1)
        for _ in range(5):
            office.complete()
        with run_sender(office.settings):
            for _ in range(5):
                receiver.next()
    assert max(at_once) == 1
