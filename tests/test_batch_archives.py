"""Batches as archives: a zip file of images, within safe limits."""

import io
import random
import socket
import struct
import zipfile

import pytest

from app.core.config import LimitSettings, QueueSettings, Settings
from app.jobs.payload_stores import payload_folder
from app.main import create_app
from tests.api_client import assert_problem, png_head, submit
from tests.api_server import run_api
from tests.batch_desk import IMAGE, BatchDesk


def pack(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_an_archive_is_a_batch(desk: BatchDesk) -> None:
    archive = pack(
        {
            "holiday/": b"",
            "holiday/one.jpg": IMAGE,
            "__MACOSX/holiday/._one.jpg": b"x",
            "holiday/.DS_Store": b"x",
            "../../etc/passwd": png_head(10, 10),
            "notes.txt": b"text",
            "inner.zip": pack({"x.jpg": IMAGE}),
        },
        zipfile.ZIP_DEFLATED,
    )
    response = desk.send_archive(archive, ["a", "b", "c", "d"])
    assert response.status_code == 202, response.text
    batch = response.json()
    names = [job["filename"] for job in batch["jobs"]]
    assert names == ["holiday/one.jpg", "../../etc/passwd", "notes.txt", "inner.zip"]
    assert [job["custom_id"] for job in batch["jobs"]] == ["a", "b", "c", "d"]
    one, label, *_ = [job["job_id"] for job in batch["jobs"]]
    assert desk.uploads() == {one, label}
    assert (payload_folder(desk.settings) / one).read_bytes() == IMAGE
    codes = [line["problem"]["code"] for line in desk.read_lines(batch)]
    assert codes == ["unsupported-image"] * 2
    assert list((desk.settings.data_dir / "spool").iterdir()) == []


def encrypted() -> bytes:
    """An archive whose only entry is marked as encrypted."""
    archive = bytearray(pack({"a.jpg": IMAGE}))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        archive[archive.index(signature) + offset] |= 1
    return bytes(archive)


def nameless() -> bytes:
    """An archive whose only entry has a name of no characters in the list of contents."""
    archive = bytearray(pack({"a": IMAGE}))
    entry = archive.index(b"PK\1\2")
    del archive[entry + 46]
    archive[entry + 28] -= 1
    archive[-10] -= 1  # the size of the list
    return bytes(archive)


def misnamed() -> bytes:
    """Two entries, of which the second says of its name that it is UTF-8, and it is not."""
    archive = bytearray(pack({"good.jpg": IMAGE, "bad.jpg": IMAGE}))
    header = archive.rindex(b"PK\3\4")
    archive[header + 7] |= 0x8
    archive[header + 30] = 0xFF
    return bytes(archive)


def far_away(offset: int, image: bytes = IMAGE) -> bytes:
    """Two entries, of which the second lies at an offset that takes eight bytes to say."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("good.jpg", image)
        entry = zipfile.ZipInfo("bad.jpg")
        archive.writestr(entry, image)
        # Only the list of contents is still to be written.
        entry.extra = struct.pack("<HHQ", 1, 8, offset)
    packed = bytearray(file.getvalue())
    struct.pack_into("<L", packed, packed.rindex(b"PK\1\2") + 42, 0xFFFFFFFF)
    return bytes(packed)


def overlapping() -> bytes:
    """A small archive whose thousand entries are all the same megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1 << 20))
        entry = archive.infolist()[0]
        archive.filelist.extend([entry] * 999)
    return file.getvalue()


def test_the_contract_says_what_an_archive_may_be(desk: BatchDesk) -> None:
    operation = desk.client.get("/openapi.json").json()["paths"]["/batches"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    words = form["properties"]["archive"]["description"]
    limits = ("1,000 images", "stored or deflated", "unencrypted", "100 times", "10 MiB")
    for limit in (*limits, "512 KiB", "QUEUE_MAX_BYTES", "MAX_FILE_SIZE"):
        assert limit in words


@pytest.mark.parametrize(
    ("archive", "code", "words"),
    [
        (b"no zip file", "malformed-archive", "not a zip file"),
        (b"", "malformed-archive", "not a zip file"),
        (pack({"a.jpg": IMAGE})[:-30], "malformed-archive", "damaged"),
        (nameless(), "malformed-archive", "damaged"),
        (encrypted(), "unsafe-archive", "encrypted"),
        (pack({"a.jpg": IMAGE}, zipfile.ZIP_LZMA), "unsafe-archive", "deflate"),
        (pack({"a": bytes(30_000_000)}, zipfile.ZIP_DEFLATED), "unsafe-archive", "100 times"),
        (overlapping(), "unsafe-archive", "100 times"),
        (pack({str(n): b"x" for n in range(1001)}), "too-many-images", "1,000 images"),
        (pack({str(n): b"" for n in range(20_000)}), "too-many-images", "too many entries"),
        (pack({}), "missing-file", "Send images"),
    ],
    ids=[
        "text",
        "empty",
        "cut",
        "nameless",
        "encrypted",
        "lzma",
        "bomb",
        "overlap",
        "1001",
        "20000",
        "nothing",
    ],
)
def test_archives_that_are_no_good_are_refused(
    desk: BatchDesk, archive: bytes, code: str, words: str
) -> None:
    document = assert_problem(desk.send_archive(archive), 422, code)
    assert words in document["detail"]
    desk.assert_nothing_was_accepted()


def test_an_archive_that_unpacks_to_more_than_may_wait_is_refused(settings: Settings) -> None:
    update = {
        "queue": QueueSettings(max_bytes=3 * len(IMAGE)),
        "limits": LimitSettings(file_size=2 * len(IMAGE)),
    }
    with run_api(create_app(settings.model_copy(update=update))) as url:
        response = BatchDesk(url, settings).send_archive(pack({str(n): IMAGE for n in range(4)}))
    assert "unpacks to more than" in assert_problem(response, 422, "unsafe-archive")["detail"]


def corrupted() -> bytes:
    """Two entries, of which the second has another checksum than it should."""
    archive = bytearray(pack({"good.jpg": IMAGE, "bad.jpg": IMAGE}))
    archive[archive.rindex(IMAGE[-100:]) + 50] ^= 0xFF
    return bytes(archive)


@pytest.mark.parametrize(
    "archive",
    [corrupted(), misnamed(), far_away(2**63 - 1), far_away(2**63), far_away(2**64 - 1)],
    ids=["checksum", "name", "2^63-1", "2^63", "2^64-1"],
)
def test_a_damaged_entry_fails_alone(desk: BatchDesk, archive: bytes) -> None:
    response = desk.send_archive(archive)
    assert response.status_code == 202, response.text
    good, bad = [job["job_id"] for job in response.json()["jobs"]]
    (line,) = desk.read_lines(response.json())
    assert (line["job_id"], line["problem"]["code"]) == (bad, "malformed-image")
    assert desk.uploads() == {good}


def mutate(archive: bytes, chance: random.Random) -> bytes:
    """The archive with a few bytes changed, and now and then some more or less of them."""
    mutated = bytearray(archive)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(mutated))
        mutated[place] = chance.choice((0, 1, 8, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    if chance.random() < 0.1:
        place = chance.randrange(len(mutated))
        mutated[place : place + chance.randrange(8)] = chance.randbytes(chance.randrange(8))
    return bytes(mutated)


# Of small images: most of these is structure.
@pytest.mark.parametrize(
    "archive",
    [
        pack({"a": png_head(1, 1), "b/": b"", "b/c": b"text"}),
        pack({"ä": png_head(1, 1), "b": bytes(99)}, zipfile.ZIP_DEFLATED),
        far_away(2**62, png_head(1, 1)),
    ],
    ids=["stored", "deflated", "zip64"],
)
def test_no_archive_however_damaged_is_our_fault(desk: BatchDesk, archive: bytes) -> None:
    chance = random.Random(1)
    for _ in range(300):
        mutated = mutate(archive, chance)
        response = desk.send_archive(mutated)
        assert response.status_code in (202, 422), mutated.hex()


def test_an_entry_that_is_too_large_fails_alone(settings: Settings) -> None:
    limits = LimitSettings(file_size=len(IMAGE))
    with run_api(create_app(settings.model_copy(update={"limits": limits}))) as url:
        desk = BatchDesk(url, settings)
        archive = pack({"good.jpg": IMAGE, "large.jpg": IMAGE + b"x"})
        (line,) = desk.read_lines(desk.send_archive(archive).json())
    assert (line["filename"], line["problem"]["code"]) == ("large.jpg", "file-too-large")


@pytest.mark.parametrize("fields", [("archive", "file"), ("file", "archive"), ("archive",) * 2])
def test_images_beside_an_archive_are_refused(desk: BatchDesk, fields: tuple[str, str]) -> None:
    files = [(field, ("x", pack({"a": IMAGE}))) for field in fields]
    assert_problem(desk.client.post("/batches", files=files), 422, "invalid-request")
    desk.assert_nothing_was_accepted()


def test_an_archive_is_refused_on_its_way_when_there_is_no_room_any_more(
    settings: Settings,
) -> None:
    small = settings.model_copy(update={"queue": QueueSettings(max_jobs=1)})
    head = (
        b"POST /batches HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
    with run_api(create_app(small)) as url:
        desk = BatchDesk(url, small)
        address = ("127.0.0.1", desk.client.base_url.port or 0)
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(head + chunk(part))
            assert submit(desk.client).status_code == 202
            for _ in range(20):
                connection.sendall(chunk(bytes(1024 * 1024)))
            # Of an archive that has not ended.
            assert b"HTTP/1.1 429" in connection.recv(1024)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
