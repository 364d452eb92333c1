"""Uploads as they come, sent to the running service."""

import httpx2
import psutil
import pytest

from tests.inputs import ACCEPTED, CAT_JPEG, CLASSIFIED, TABLE, Upload, create_uploads, render_table
from tests.service import RunningService, wait_until

UPLOADS = create_uploads()


def outcome_of(client: httpx2.Client, data: bytes) -> str:
    """What a client gets for an upload in the end, in the words of docs/inputs.md."""
    answer = client.post("/classify", files={"file": ("photo.jpg", data, "image/jpeg")})
    if answer.status_code == 202:
        result = f"/result/{answer.json()['job_id']}"
        wait_until(lambda: client.get(result).status_code != 202, 60)
        answer = client.get(result)
    document = answer.json()
    if answer.status_code == 200:
        best = [prediction["class_name"] for prediction in document["predictions"]]
        return (
            CLASSIFIED if any("cat" in name or name == "tabby" for name in best[:2]) else ACCEPTED
        )
    assert document["detail"] and document["title"]
    return f"{document['status']} {document['code']}"


@pytest.fixture(scope="module")
def client(service: RunningService) -> httpx2.Client:
    return httpx2.Client(base_url=service.url, timeout=60)


@pytest.mark.parametrize("upload", UPLOADS, ids=lambda upload: upload.name)
def test_an_upload_gets_what_the_documentation_says(client: httpx2.Client, upload: Upload) -> None:
    assert outcome_of(client, upload.data) == upload.outcome


def test_afterwards_the_next_good_image_works_and_no_process_was_lost(
    client: httpx2.Client, service: RunningService
) -> None:
    def pids() -> set[int]:
        return {child.pid for child in psutil.Process(service.process.pid).children(True)}

    before = pids()
    for upload in UPLOADS:
        if upload.outcome[:3] in ("422", "413"):
            client.post("/classify", files={"file": upload.data})
    assert outcome_of(client, CAT_JPEG) == CLASSIFIED
    assert pids() == before


def test_the_table_in_the_documentation_is_this_one() -> None:
    assert TABLE.read_text() == render_table(UPLOADS), "run: make docs"
