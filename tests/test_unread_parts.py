"""Forms that bring more than images: what nobody reads is bounded."""

import httpx2
import pytest

from tests.api_client import SAMPLE, assert_problem
from tests.batch_desk import BatchDesk

IMAGE = SAMPLE.read_bytes()
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PATHS = ["/classify", "/batches"]
END = b"--x--\r\n"


def create_part(name: str, data: bytes, filename: str = "") -> bytes:
    kind = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return b"--x\r\nContent-Disposition: " + kind.encode() + b"\r\n\r\n" + data + b"\r\n"


FILE = create_part("file", IMAGE, "cat.jpg")


def post(desk: BatchDesk, path: str, body: bytes) -> httpx2.Response:
    return desk.client.post(path, content=body, headers=FORM)


@pytest.mark.parametrize("path", PATHS)
def test_a_thousand_small_fields_are_passed_over(desk: BatchDesk, path: str) -> None:
    fields = create_part("x", b"") * 1000
    assert post(desk, path, fields + FILE + END).status_code == 202
    assert_problem(post(desk, path, fields + create_part("y", b"") + FILE), 422, "unread-parts")


@pytest.mark.parametrize(("path", "allowed_bytes"), [("/classify", 60_000), ("/batches", 4 << 20)])
def test_so_are_a_few_bytes_but_not_more(desk: BatchDesk, path: str, allowed_bytes: int) -> None:
    field = create_part("x", bytes(allowed_bytes - 10_000))
    assert post(desk, path, FILE + field + END).status_code == 202
    assert_problem(post(desk, path, FILE + field * 2 + END), 422, "unread-parts")
    headers = create_part("x" * 4000, b"") * (2 * allowed_bytes // 4000)
    assert_problem(post(desk, path, FILE + headers + END), 422, "unread-parts")


@pytest.mark.parametrize("path", PATHS)
def test_what_stands_before_or_behind_the_form_counts_too(desk: BatchDesk, path: str) -> None:
    much = bytes(5 << 20)
    assert_problem(post(desk, path, FILE + END + much), 422, "unread-parts")
    assert_problem(post(desk, path, much + b"\r\n" + FILE + END), 422, "missing-file")
    desk.assert_nothing_was_accepted()


@pytest.mark.parametrize("path", PATHS)
def test_an_image_in_a_wrong_field_is_told_as_what_it_is(desk: BatchDesk, path: str) -> None:
    body = create_part("image", bytes(5 << 20), "cat.jpg") + END
    assert_problem(post(desk, path, body), 422, "missing-file")


def test_a_custom_id_without_end_is_refused_before_it_ends(desk: BatchDesk) -> None:
    for length in (513, 1 << 20):
        body = FILE + create_part("custom_id", b"x" * length)
        assert_problem(post(desk, "/batches", body), 422, "invalid-request")
    desk.assert_nothing_was_accepted()


def test_a_batch_of_a_thousand_images_with_long_names_fits(desk: BatchDesk) -> None:
    named = b"".join(
        create_part("file", IMAGE[:200], f"{number:04}" + "n" * 1000)
        + create_part("custom_id", f"{number:04}".encode() + "é".encode() * 124)
        for number in range(1000)
    )
    assert post(desk, "/batches", named + END).status_code == 202
