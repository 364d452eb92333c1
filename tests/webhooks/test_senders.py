"""Senders that die, come late or find no history."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.core import keys
from app.core.config import QueueSettings, Settings
from app.main import create_app
from tests.api_client import assert_problem
from tests.api_server import run_api
from tests.service import COMMAND, clean_environment, wait_until
from tests.webhooks.post_office import HOUR_MS, PostOffice, run_sender
from tests.webhooks.receiver import Reply, run_receiver


@contextmanager
def sender_process(office: PostOffice, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """`classifier webhooks`, as it is installed."""
    environment = clean_environment(
        REDIS_URL=office.settings.redis.url, WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8", **variables
    )
    process = subprocess.Popen(
        [COMMAND, "webhooks"],
        env=environment,
        cwd=office.settings.data_dir.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: office.senders() > 0 or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_a_sender_that_is_killed_in_the_middle_loses_nothing(office: PostOffice) -> None:
    never = threading.Event()
    with run_receiver(Reply(after=never), Reply(after=never), Reply()) as receiver:
        office.register(receiver.url)
        with sender_process(office) as process:
            office.complete()
            office.complete()
            cut_off = {receiver.next().id, receiver.next().id}
            process.kill()
            process.wait(10)
        never.set()
        late = office.complete()  # while nobody sends
        with run_sender(office.settings):
            assert receiver.next().event["data"]["job_id"] == late
            assert receiver.is_quiet()
            office.let_time_pass(HOUR_MS)  # the dead one's leases run out
            assert {receiver.next().id, receiver.next().id} == cut_off
            for delivery_id in cut_off:
                assert office.wait_for_end(delivery_id)["status"] == "delivered"


def test_what_a_dead_sender_would_have_tried_again_another_tries(office: PostOffice) -> None:
    gate = threading.Event()
    with run_receiver(Reply(500, after=gate), Reply(204)) as receiver:
        office.register(receiver.url)
        with sender_process(office) as process:
            office.complete()
            delivery_id = receiver.next().id
            with run_sender(office.settings):
                gate.set()
                office.wait_for_attempts(delivery_id, 1)
                process.kill()
                process.wait(10)
                assert receiver.next().id == delivery_id
                assert office.wait_for_end(delivery_id)["status"] == "delivered"


def test_a_sender_that_was_only_asleep_changes_nothing(office: PostOffice) -> None:
    late = threading.Event()
    with run_receiver(Reply(204, after=late), Reply(500)) as receiver:
        office.register(receiver.url)
        with sender_process(office) as process:
            office.complete()
            delivery_id = receiver.next().id
            process.send_signal(signal.SIGSTOP)
            with run_sender(office.settings):
                office.let_time_pass(HOUR_MS)
                assert receiver.next().id == delivery_id
                (attempt,) = office.wait_for_attempts(delivery_id, 1)["attempts"]
                assert (attempt["attempt"], attempt["status_code"]) == (2, 500)
            late.set()
            process.send_signal(signal.SIGCONT)
            with run_receiver() as other:
                office.register(other.url)
                office.complete()
                other.next()
            process.send_signal(signal.SIGTERM)  # it reports what it has before it ends
            assert process.wait(10) == 0
    delivery = office.delivery(delivery_id)
    assert (delivery["status"], len(delivery["attempts"])) == ("pending", 1)


def test_a_sender_that_is_told_to_stop_ends_what_it_began(office: PostOffice) -> None:
    gate = threading.Event()
    with run_receiver(Reply(after=gate)) as receiver:
        office.register(receiver.url)
        with sender_process(office) as process:
            office.complete()
            delivery_id = receiver.next().id
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: office.senders() == 0)
            gate.set()
            assert process.wait(10) == 0
    assert office.delivery(delivery_id)["status"] == "delivered"


def test_what_ends_while_no_sender_runs_is_told_later(office: PostOffice) -> None:
    with run_receiver() as receiver:
        office.register(receiver.url)
        assert office.reasons() == ["no webhook sender: deliveries wait until one starts"]
        ids = {office.complete() for _ in range(5)}
        with run_sender(office.settings):
            assert {receiver.next().event["data"]["job_id"] for _ in ids} == ids
            assert office.reasons() == []


def test_events_that_the_history_has_lost_are_told_of(
    office: PostOffice, caplog: pytest.LogCaptureFixture
) -> None:
    with run_receiver() as receiver:
        office.register(receiver.url)
        with run_sender(office.settings):
            office.complete()
            receiver.next()
            assert office.reasons() == []
        for _ in range(3):
            office.complete()
        office.redis.xtrim(keys.HISTORY, maxlen=1, approximate=False)
        with run_sender(office.settings):
            receiver.next()
            (reason,) = office.reasons()
    assert reason.startswith("webhooks missed events after 20")
    assert any("events were lost" in record.message for record in caplog.records)


def test_a_history_that_is_cut_behind_the_sender_loses_nothing(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url)
        for _ in range(3):
            post_office.complete()
            receiver.next()
            post_office.redis.xtrim(keys.HISTORY, maxlen=1, approximate=False)
        assert post_office.reasons() == []


def test_without_a_history_there_are_no_webhooks(settings: Settings) -> None:
    settings = settings.model_copy(update={"queue": QueueSettings(history_length=0)})
    with run_api(create_app(settings)) as url:
        office = PostOffice(url, settings)
        for method, path in [("POST", ""), ("GET", ""), ("GET", "/deliveries")]:
            answer = office.client.request(method, f"/webhooks{path}")
            problem = assert_problem(answer, 403, "webhooks-closed")
            assert "QUEUE_HISTORY_LENGTH" in problem["detail"]
        with sender_process(office, QUEUE_HISTORY_LENGTH="0") as process:
            assert process.wait(10) == 2
            assert process.stderr is not None
            assert (
                process.stderr.read().splitlines()[-1].startswith("classifier: webhooks are made")
            )


def test_a_redis_that_restarts_is_found_again(post_office: PostOffice) -> None:
    with run_receiver() as receiver:
        post_office.register(receiver.url)
        post_office.redis.client_kill_filter(_type="pubsub")
        post_office.redis.client_kill_filter(_type="normal", skipme=True)
        job_id = post_office.complete()
        assert receiver.next().event["data"]["job_id"] == job_id
        wait_until(lambda: post_office.senders() == 1)
