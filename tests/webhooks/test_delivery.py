"""What receivers see when jobs end."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis.asyncio

from app.core import keys
from app.core.config import Settings, WebhookSettings
from app.webhooks.sending.ledger import SenderLedger
from examples.webhook_receiver import VerificationError, verify
from tests.service import clean_environment, find_free_port, wait_until
from tests.webhooks.post_office import PostOffice, run_sender
from tests.webhooks.receiver import Reply, Request, run_receiver

EXAMPLE = Path(__file__).parents[2] / "examples" / "webhook_receiver.py"


def test_a_completed_job_is_told_signed_and_without_its_predictions(
    post_office: PostOffice,
) -> None:
    with run_receiver() as receiver:
        secret = post_office.register(receiver.url)["secret"]
        job_id = post_office.complete()
        request = receiver.next()
        delivery = post_office.wait_for_end(request.id)
    request.verify(secret)
    assert request.path == "/hook?from=test"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    timestamp = request.event.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
    assert request.event == {
        "type": "job.completed",
        "timestamp": timestamp,
        "data": {"job_id": job_id, "status": "completed"},
    }
    assert (delivery["status"], delivery["job_id"]) == ("delivered", job_id)
    (attempt,) = delivery["attempts"]
    assert (attempt["attempt"], attempt["status_code"], attempt["error"]) == (1, 204, None)


def test_who_does_not_know_the_secret_forges_nothing(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        secret = post_office.register(receiver.url)["secret"]
        other = post_office.register(receiver.url + "2")["secret"]
        post_office.complete()
        requests = {request.path: request for request in (receiver.next(), receiver.next())}
    request = requests["/hook?from=test"]
    request.verify(secret)
    changed = Request(request.path, request.headers, request.body.replace(b"completed", b"failed"))
    late = int(request.headers["webhook-timestamp"]) + 301
    with pytest.raises(VerificationError):
        request.verify(other)
    with pytest.raises(VerificationError):
        changed.verify(secret)
    with pytest.raises(VerificationError):
        verify(secret, request.headers, request.body, now=late)
    with pytest.raises(VerificationError):
        verify(secret, request.headers | {"webhook-id": "msg_other"}, request.body)


def test_a_webhook_hears_of_what_it_asked_for(post_office: PostOffice) -> None:
    with run_receiver() as failures, run_receiver() as everything:
        post_office.register(failures.url, "job.failed")
        post_office.register(everything.url)
        completed, failed = post_office.complete(), post_office.fail()
        seen = [everything.next().event for _ in range(2)]
        request = failures.next()
    assert request.event["type"] == "job.failed"
    assert request.event["data"] == {"job_id": failed, "status": "failed"}
    assert {event["data"]["job_id"] for event in seen} == {completed, failed}
    assert failures.is_quiet()


def test_an_event_says_where_the_result_is_if_the_service_knows(office: PostOffice) -> None:
    webhook = office.settings.webhook.model_copy(
        update={"service_url": "https://images.example.com"}
    )
    settings = office.settings.model_copy(update={"webhook": webhook})
    with run_sender(settings), run_receiver() as receiver:
        office.register(receiver.url)
        job_id = office.complete()
        event = receiver.next().event
    assert event["data"]["result_url"] == f"https://images.example.com/result/{job_id}"


def test_what_ended_before_a_webhook_was_registered_is_not_told(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        post_office.complete()
        post_office.register(receiver.url)
        job_id = post_office.complete()
        assert receiver.next().event["data"]["job_id"] == job_id
    assert len(post_office.deliveries()) == 1


def test_a_deleted_webhook_hears_nothing_and_leaves_nothing(post_office: PostOffice) -> None:
    with run_receiver(Reply(500)) as receiver:
        webhook_id = post_office.register(receiver.url)["webhook_id"]
        post_office.complete()
        post_office.wait_for_attempts(receiver.next().id, 1)
        assert post_office.client.delete(f"/webhooks/{webhook_id}").status_code == 204
        post_office.complete()

        def is_forgotten() -> bool:
            return not [
                key
                for pattern in (keys.DELIVERY, keys.WEBHOOK, keys.WEBHOOK_DUE, keys.WEBHOOK_LOG)
                for key in post_office.redis.keys(pattern + "*")
            ]

        wait_until(is_forgotten)
        assert not post_office.redis.exists(keys.WEBHOOKS_DUE)
    assert receiver.is_quiet()


def test_a_job_that_is_gone_by_now_is_told_all_the_same(office: PostOffice) -> None:
    with run_receiver() as receiver:
        office.register(receiver.url)
        job_id = office.complete()
        office.redis.delete(keys.job(job_id))
        with run_sender(office.settings):
            assert receiver.next().event["data"]["job_id"] == job_id


def test_an_end_that_does_not_name_its_owner_is_told_to_the_jobs(post_office: PostOffice) -> None:
    """Histories that were written before there were webhooks."""
    with run_receiver() as receiver:
        post_office.register(receiver.url)
        job_id = post_office.submit()
        fields = {"job": job_id, "state": "completed", "attempt": 1}
        post_office.redis.xadd(keys.HISTORY, fields)
        assert receiver.next().event["data"]["job_id"] == job_id


def test_a_thousand_jobs_are_told_once_each(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url)
        pipeline = post_office.redis.pipeline()
        ids = {f"00000000-0000-4000-8000-{number:012}" for number in range(1000)}
        for job_id in ids:
            fields = {"job": job_id, "state": "completed", "attempt": 1, "owner": "anonymous"}
            pipeline.xadd(keys.HISTORY, fields)
        pipeline.execute()
        told = [receiver.next() for _ in ids]
        wait_until(lambda: not post_office.redis.exists(keys.WEBHOOKS_DUE))
    assert {request.event["data"]["job_id"] for request in told} == ids
    assert len({request.id for request in told}) == 1000
    assert receiver.is_quiet()


def test_several_senders_share_the_work(post_office: PostOffice) -> None:
    with run_receiver() as receiver, run_sender(post_office.settings):
        assert post_office.senders() == 2
        post_office.register(receiver.url)
        ids = {post_office.complete() for _ in range(30)}
        told = [receiver.next() for _ in ids]
        wait_until(lambda: not post_office.redis.exists(keys.WEBHOOKS_DUE))
    assert {request.event["data"]["job_id"] for request in told} == ids
    assert receiver.is_quiet()


def test_too_many_waiting_deliveries_are_dropped_and_counted(office: PostOffice) -> None:
    webhook = WebhookSettings(allowed_networks="127.0.0.1/32", max_pending=2)
    settings = office.settings.model_copy(update={"webhook": webhook})
    with run_receiver(Reply(500)) as receiver:
        webhook_id = office.register(receiver.url)["webhook_id"]
        for _ in range(5):
            office.complete()
        with run_sender(settings):
            receiver.next()
            wait_until(lambda: office.client.get(f"/webhooks/{webhook_id}").json()["dropped"] == 3)
    assert len(office.deliveries()) == 2


def plan_ends(office: PostOffice, settings: Settings, count: int) -> None:
    """What a sender does when so many batches have ended."""
    pipeline = office.redis.pipeline()
    for number in range(count):
        pipeline.xadd(
            keys.HISTORY,
            {
                "batch": f"00000000-0000-4000-8000-{number:012}",
                "state": "completed",
                "owner": "anonymous",
                "counts": '{"total":1000,"completed":997,"failed":3,"cancelled":0}',
            },
        )
    pipeline.execute()

    async def plan_all() -> None:
        async with redis.asyncio.Redis.from_url(settings.redis.url) as client:
            ledger = SenderLedger(client, client, settings)
            while (await ledger.plan()).read:
                pass

    asyncio.run(plan_all())


def test_what_may_wait_leaves_redis_room_for_jobs(office: PostOffice) -> None:
    """With the defaults, where nobody takes anything; docs/webhooks.md names the number."""
    office.register("http://127.0.0.1:1/")
    count = 1000
    before = office.redis.info("memory")["used_memory"]
    plan_ends(office, office.settings, count)
    each = (office.redis.info("memory")["used_memory"] - before) / count
    assert len(office.deliveries(limit=100)) == 100
    allowed = WebhookSettings()
    assert each * allowed.max_pending * allowed.max_endpoints < 200_000_000


@pytest.mark.parametrize("limited", ["by the setting", "by Redis"])
def test_deliveries_share_a_quarter_of_a_small_memory(office: PostOffice, limited: str) -> None:
    least = 1 << 25
    settings = office.settings
    if limited == "by the setting":
        redis_settings = settings.redis.model_copy(update={"max_memory": least})
        settings = settings.model_copy(update={"redis": redis_settings})
    ids = [office.register("http://127.0.0.1:1/")["webhook_id"] for _ in range(16)]
    office.redis.config_set("maxmemory", least if limited == "by Redis" else 0)
    try:
        plan_ends(office, settings, 200)
    finally:
        office.redis.config_set("maxmemory", 0)
    waiting = sum(office.redis.zcard(keys.WEBHOOK_DUE + webhook_id) for webhook_id in ids)
    logged = sum(office.redis.zcard(keys.WEBHOOK_LOG + webhook_id) for webhook_id in ids)
    assert 1000 < waiting == logged <= least // 4 // 2560 // 2 + 16
    dropped = office.client.get(f"/webhooks/{ids[0]}").json()["dropped"]
    assert dropped == 200 - waiting // 16


def test_the_example_receiver_prints_what_it_has_verified(post_office: PostOffice) -> None:
    port = find_free_port()
    secret = post_office.register(f"http://127.0.0.1:{port}/")["secret"]
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(port)],
        env=clean_environment(WEBHOOK_SECRET=secret),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"listening on {port}\n"
        job_id = post_office.complete()
        assert job_id in process.stdout.readline()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
