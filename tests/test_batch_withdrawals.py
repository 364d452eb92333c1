"""Batches that their owners cancel or erase, over HTTP. No worker runs here."""

from app.core import keys
from app.jobs.job import Outcome
from tests.api_client import assert_problem
from tests.batch_desk import IMAGE, BatchDesk
from tests.test_dead_letters import PREDICTIONS

UNKNOWN = "/batches/5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11"


def test_a_waiting_batch_is_cancelled_at_once_and_keeps_what_was_done(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 5)
    done = desk.complete(2)
    response = desk.client.post(f"/batches/{batch['batch_id']}/cancel")
    document = response.json()
    assert (response.status_code, document["status"]) == (200, "cancelled")
    assert (document["completed"], document["cancelled"], document["progress"]) == (2, 3, 100)
    assert desk.get(batch) == document
    lines = desk.read_lines(batch)
    assert [line["job_id"] for line in lines[:2]] == done
    assert [line["predictions"] for line in lines[:2]] == [PREDICTIONS] * 2
    assert {line["problem"]["code"] for line in lines[2:]} == {"job-cancelled"}
    assert desk.claim() == []
    assert not desk.uploads() & {line["job_id"] for line in lines[2:]}


def test_what_a_worker_has_stops_later(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 4)
    claims = desk.claim(2)
    path = f"/batches/{batch['batch_id']}/cancel"
    response = desk.client.post(path)
    assert (response.status_code, response.json()["status"]) == (202, "processing")
    assert response.headers["location"] == f"/batches/{batch['batch_id']}"
    assert (response.json()["cancelled"], response.json()["processing"]) == (2, 2)
    assert desk.client.post(path).status_code == 202
    desk.ledger.finish([Outcome.completed(claims[0], PREDICTIONS)])
    desk.ledger.hand_back("w")
    document = desk.get(batch)
    assert (document["status"], document["completed"]) == ("cancelled", 1)
    assert_problem(desk.client.post(path), 409, "batch-ended")


def test_a_batch_that_has_ended_is_not_cancelled(desk: BatchDesk) -> None:
    batch = desk.submit()
    desk.complete()
    response = desk.client.post(f"/batches/{batch['batch_id']}/cancel")
    assert_problem(response, 409, "batch-ended")
    assert desk.get(batch)["status"] == "completed"
    assert_problem(desk.client.post(f"{UNKNOWN}/cancel"), 404, "batch-not-found")


def test_a_batch_whose_jobs_were_cancelled_one_by_one_is_completed(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 2)
    for job in batch["jobs"]:
        assert desk.client.post(f"/jobs/{job['job_id']}/cancel").status_code == 200
    document = desk.get(batch)
    assert (document["status"], document["cancelled"]) == ("completed", 2)


def test_a_batch_and_the_history_say_the_same_time_of_its_end(desk: BatchDesk) -> None:
    batch_id = desk.submit([IMAGE] * 200)["batch_id"]
    assert desk.client.post(f"/batches/{batch_id}/cancel").status_code == 200
    # One script has ended all of its jobs, and its beginning is some milliseconds ago by then.
    ((entry, fields),) = desk.redis.xrevrange(keys.HISTORY, count=1)
    assert fields[b"batch"].decode() == batch_id
    assert desk.redis.hget(keys.BATCH + batch_id, "updated") == entry.partition(b"-")[0]


def test_an_erased_batch_is_gone_with_all_of_its_jobs(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 4)
    claim, _ = desk.claim(2)
    desk.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
    path = f"/batches/{batch['batch_id']}"
    assert desk.client.delete(path).status_code == 204
    for gone in (path, f"{path}/results"):
        assert_problem(desk.client.get(gone), 410, "batch-erased")
    assert_problem(desk.client.delete(path), 410, "batch-erased")
    assert_problem(desk.client.post(f"{path}/cancel"), 410, "batch-erased")
    for job in batch["jobs"]:
        assert_problem(desk.client.get(f"/result/{job['job_id']}"), 410, "job-erased")
    assert desk.uploads() == set()
    assert desk.claim() == []
    assert desk.redis.keys(keys.JOB + "*") == desk.redis.keys(keys.BATCH + "*") == []
    assert int(desk.redis.get(keys.BACKLOG_JOBS) or 0) == 0
    assert_problem(desk.client.delete(UNKNOWN), 404, "batch-not-found")


def test_an_erased_job_leaves_its_line(desk: BatchDesk) -> None:
    batch = desk.submit([IMAGE] * 2, ["a", "b"])
    first = batch["jobs"][0]["job_id"]
    assert desk.client.delete(f"/jobs/{first}").status_code == 204
    (line,) = desk.read_lines(batch)
    assert (line["job_id"], line["status"], line["custom_id"]) == (first, "erased", None)
    assert line["problem"]["code"] == "job-erased"
    desk.complete()
    assert desk.get(batch)["status"] == "completed"
