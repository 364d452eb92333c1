"""``Idempotency-Key`` on batches, as clients see it."""

import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from httpx2 import Response

from app.core import keys
from app.core.config import LimitSettings, QueueSettings, Settings
from app.main import create_app
from tests.api_client import assert_problem, png_head
from tests.api_server import run_api
from tests.batch_desk import IMAGE, BatchDesk
from tests.service import wait_until
from tests.test_batch_archives import pack
from tests.test_idempotency import KEY, OTHER, SlowSender

UNDER_KEY = {"Idempotency-Key": KEY}
OTHER_IMAGE = OTHER.read_bytes()
REFUSED = b"text " * 100_000  # long enough to arrive in pieces
IMAGES = [IMAGE, OTHER_IMAGE, REFUSED]


def post(desk: BatchDesk, **changes: Any) -> Response:
    batch: dict[str, Any] = {"images": IMAGES, "custom_ids": ["a", "b", "c"]} | changes
    return desk.post(**batch, headers=UNDER_KEY)


def send_files(desk: BatchDesk, *files: tuple[str, Any]) -> Response:
    return desk.client.post("/batches", files=files, headers=UNDER_KEY)


def submit_job(desk: BatchDesk) -> Response:
    return desk.client.post("/classify", files={"file": ("0.jpg", IMAGE)}, headers=UNDER_KEY)


def count_batches(desk: BatchDesk) -> int:
    return len(desk.redis.keys(keys.BATCH + "*"))


def keys_in(desk: BatchDesk) -> list[bytes]:
    found: list[bytes] = desk.redis.keys(keys.IDEMPOTENCY + "*")
    return found


def assert_replayed(response: Response, batch: dict[str, Any]) -> None:
    assert (response.status_code, response.json()) == (202, batch)
    assert response.headers["idempotency-replayed"] == "true"
    assert response.headers["location"] == f"/batches/{batch['batch_id']}"


def test_the_same_batch_is_accepted_once(desk: BatchDesk) -> None:
    first = post(desk)
    assert "idempotency-replayed" not in first.headers
    batch = first.json()
    uploads = desk.uploads()
    assert len(uploads) == 2
    for _ in range(2):
        again = post(desk)
        assert_replayed(again, batch)
        assert again.headers["retry-after"] == first.headers["retry-after"]
    assert count_batches(desk) == 1
    assert desk.redis.llen(keys.BULK_QUEUE) == 2
    assert desk.uploads() == uploads
    (key,) = keys_in(desk)
    assert 23 * 3600 < desk.redis.ttl(key) <= 24 * 3600


def test_without_a_key_the_same_batch_is_accepted_twice(desk: BatchDesk) -> None:
    assert desk.submit()["batch_id"] != desk.submit()["batch_id"]
    assert keys_in(desk) == []


def test_a_batch_that_has_ended_is_answered_the_same(desk: BatchDesk) -> None:
    batch = post(desk).json()
    desk.complete()
    again = post(desk)
    assert_replayed(again, batch)
    assert "retry-after" not in again.headers
    desk.client.delete(f"/jobs/{batch['jobs'][0]['job_id']}")
    assert_replayed(post(desk), batch)


@pytest.mark.parametrize(
    "other",
    [
        {"images": [OTHER_IMAGE, IMAGE, REFUSED]},
        {"images": [IMAGE, IMAGE, REFUSED]},
        {"images": [IMAGE, OTHER_IMAGE, REFUSED + b"more"]},
        {"images": [IMAGE, OTHER_IMAGE], "custom_ids": ["a", "b"]},
        {"custom_ids": ["a", "c", "b"]},
        {"custom_ids": []},
        {"query": "?top_k=3"},
        {"query": "?threshold=0.5"},
    ],
    ids=["order", "image", "refused", "fewer", "custom_ids", "none", "top_k", "threshold"],
)
def test_a_key_is_for_one_batch_and_one_choice(desk: BatchDesk, other: dict[str, Any]) -> None:
    batch = post(desk).json()
    document = assert_problem(post(desk, **other), 422, "idempotency-key-reused")
    assert document["batch_id"] == batch["batch_id"]
    assert "job_id" not in document
    assert count_batches(desk) == 1
    assert_replayed(post(desk), batch)


def test_the_files_names_are_part_of_a_batch(desk: BatchDesk) -> None:
    batch = send_files(desk, ("file", ("one.jpg", IMAGE))).json()
    assert_problem(send_files(desk, ("file", ("two.jpg", IMAGE))), 422, "idempotency-key-reused")
    assert_replayed(send_files(desk, ("file", ("one.jpg", IMAGE))), batch)


def test_where_the_names_stand_in_the_form_is_no_part_of_a_batch(desk: BatchDesk) -> None:
    image, name = ("file", ("one.jpg", IMAGE)), ("custom_id", (None, "a"))
    batch = send_files(desk, image, name).json()
    assert_replayed(send_files(desk, name, ("unknown", (None, "x")), image), batch)


@pytest.mark.parametrize("piece_bytes", [997, 100_000])
def test_it_is_the_same_batch_in_whichever_pieces_it_comes(
    desk: BatchDesk, piece_bytes: int
) -> None:
    batch = send_files(desk, *[("file", ("x", image)) for image in IMAGES]).json()
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = b"".join(part + image + b"\r\n" for image in IMAGES) + b"--b--\r\n"
    pieces = (body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes))
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    again = desk.client.post("/batches", content=pieces, headers=UNDER_KEY | kind)
    assert_replayed(again, batch)


def test_an_archive_is_known_by_its_images(desk: BatchDesk) -> None:
    entries = {"one.jpg": IMAGE, "two.png": png_head(10, 10), "notes.txt": b"text"}
    custom_ids = ["a", "b", "c"]
    batch = desk.send_archive(pack(entries), custom_ids, UNDER_KEY).json()
    assert_replayed(desk.send_archive(pack(entries), custom_ids, UNDER_KEY), batch)
    # Packed otherwise, the images are the same.
    tighter = pack(entries, zipfile.ZIP_DEFLATED)
    assert_replayed(desk.send_archive(tighter, custom_ids, UNDER_KEY), batch)
    for other in (
        desk.send_archive(pack(entries | {"one.jpg": OTHER_IMAGE}), custom_ids, UNDER_KEY),
        desk.send_archive(pack(dict(reversed(entries.items()))), custom_ids, UNDER_KEY),
        desk.send_archive(pack(entries), ["a", "b", "d"], UNDER_KEY),
        send_files(
            desk,
            *[("file", (name, data)) for name, data in entries.items()],
            *[("custom_id", (None, text)) for text in custom_ids],
        ),
    ):
        document = assert_problem(other, 422, "idempotency-key-reused")
        assert document["batch_id"] == batch["batch_id"]
    assert count_batches(desk) == 1
    assert list((desk.settings.data_dir / "spool").iterdir()) == []


def test_an_archive_is_known_by_images_that_are_too_large_too(settings: Settings) -> None:
    limits = LimitSettings(file_size=10)
    with run_api(create_app(settings.model_copy(update={"limits": limits}))) as url:
        desk = BatchDesk(url, settings)
        batch = desk.send_archive(pack({"a.jpg": b"much text" * 2}), headers=UNDER_KEY).json()
        again = desk.send_archive(pack({"a.jpg": b"much text" * 2}), headers=UNDER_KEY)
        assert_replayed(again, batch)
        other = desk.send_archive(pack({"a.jpg": b"more text" * 2}), headers=UNDER_KEY)
        assert_problem(other, 422, "idempotency-key-reused")


def test_the_key_of_a_job_is_none_for_a_batch_nor_the_other_way_round(desk: BatchDesk) -> None:
    job_id = submit_job(desk).json()["job_id"]
    document = assert_problem(
        send_files(desk, ("file", ("0.jpg", IMAGE))), 422, "idempotency-key-reused"
    )
    assert document["job_id"] == job_id
    assert "batch_id" not in document
    assert count_batches(desk) == 0
    desk.redis.delete(*keys_in(desk))
    batch = send_files(desk, ("file", ("0.jpg", IMAGE))).json()
    document = assert_problem(submit_job(desk), 422, "idempotency-key-reused")
    assert document["batch_id"] == batch["batch_id"]
    assert "job_id" not in document
    assert desk.redis.llen(keys.QUEUE) == 1


def test_what_is_no_key_is_refused(desk: BatchDesk) -> None:
    response = desk.post([IMAGE], headers={"Idempotency-Key": "a b"})
    assert_problem(response, 400, "invalid-idempotency-key")
    desk.assert_nothing_was_accepted()


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([("other", b"x")], 422),
        ([("file", IMAGE), ("custom_id", (None, ""))], 422),
        ([("archive", b"no archive")], 422),
        ([("file", IMAGE)] * 1001, 422),
    ],
    ids=["none", "custom_id", "archive", "many"],
)
def test_a_batch_that_is_refused_frees_its_key(
    desk: BatchDesk, files: list[tuple[str, Any]], status: int
) -> None:
    assert send_files(desk, *files).status_code == status
    assert keys_in(desk) == []
    desk.assert_nothing_was_accepted()
    response = post(desk)
    assert (response.status_code, "idempotency-replayed" in response.headers) == (202, False)


@pytest.fixture
def slow_sender(desk: BatchDesk) -> Iterator[SlowSender]:
    sender = SlowSender(desk.url, "/batches")
    wait_until(lambda: keys_in(desk), 10)
    yield sender
    sender.give_up()


def test_while_the_first_still_arrives_the_second_is_told_to_come_again(
    desk: BatchDesk, slow_sender: SlowSender
) -> None:
    same = ("file", ("x", IMAGE))
    response = send_files(desk, same)
    assert_problem(response, 409, "idempotency-key-in-use")
    assert response.headers["retry-after"] == "1"
    assert_problem(submit_job(desk), 409, "idempotency-key-in-use")
    assert b" 202 " in slow_sender.go_on().splitlines()[0]
    assert send_files(desk, same).headers["idempotency-replayed"] == "true"
    assert count_batches(desk) == 1


def test_a_sender_that_disappears_frees_its_key(desk: BatchDesk, slow_sender: SlowSender) -> None:
    slow_sender.give_up()
    wait_until(lambda: not keys_in(desk), 10)
    desk.assert_nothing_was_accepted()
    assert "idempotency-replayed" not in post(desk).headers


def test_a_sender_whose_key_has_gone_to_another_is_told_so(
    desk: BatchDesk, slow_sender: SlowSender
) -> None:
    """Its process was cut off from Redis for so long that the reservation ran out."""
    desk.redis.delete(*keys_in(desk))
    batch = post(desk).json()
    answer = slow_sender.go_on()
    assert b" 409 " in answer.splitlines()[0] and b"idempotency-key-in-use" in answer
    assert count_batches(desk) == 1
    assert desk.uploads() == {job["job_id"] for job in batch["jobs"][:2]}
    assert_replayed(post(desk), batch)


def test_a_full_queue_frees_the_key_and_still_answers_repetitions(settings: Settings) -> None:
    full = settings.model_copy(update={"queue": QueueSettings(max_jobs=3)})
    with run_api(create_app(full)) as url:
        desk = BatchDesk(url, full)
        batch = desk.post([IMAGE] * 3, headers=UNDER_KEY).json()
        refused = desk.post([IMAGE], headers={"Idempotency-Key": "another"})
        assert_problem(refused, 429, "queue-full")
        assert len(keys_in(desk)) == 1
        assert_replayed(desk.post([IMAGE] * 3, headers=UNDER_KEY), batch)


@pytest.mark.parametrize("cache_control", ["", "no-cache", "no-store"])
def test_keys_work_with_and_without_the_cache(settings: Settings, cache_control: str) -> None:
    result = settings.result.model_copy(update={"cache_entries": 100})
    cached = settings.model_copy(update={"result": result})
    with run_api(create_app(cached)) as url:
        desk = BatchDesk(url, cached)
        headers = UNDER_KEY | {"Cache-Control": cache_control}
        batch = desk.post([IMAGE] * 2, headers=headers).json()
        assert_replayed(desk.post([IMAGE] * 2, headers=headers), batch)
        assert desk.redis.exists(keys.FLIGHTS) == (cache_control != "no-store")


def test_an_erased_batch_is_not_accepted_again(desk: BatchDesk) -> None:
    batch_id = post(desk).json()["batch_id"]
    assert desk.client.delete(f"/batches/{batch_id}").status_code == 204
    assert assert_problem(post(desk), 410, "batch-erased")["batch_id"] == batch_id
    desk.assert_nothing_was_accepted()


def test_the_key_of_a_batch_that_has_expired_begins_no_other(desk: BatchDesk) -> None:
    batch_id = post(desk).json()["batch_id"]
    desk.redis.delete(*(name(batch_id) for name in (keys.batch, keys.batch_jobs, keys.batch_ended)))
    document = assert_problem(post(desk), 410, "batch-expired")
    assert document["batch_id"] == batch_id
    assert "accepted" in document["detail"] and "new key" in document["detail"]
    assert count_batches(desk) == 0
    assert_problem(post(desk, custom_ids=[]), 422, "idempotency-key-reused")
