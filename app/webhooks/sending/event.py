"""The body of a delivery: what has ended and how, and where to read more."""

import json
from typing import Any

from app.core.clock import format_milliseconds
from app.webhooks.sending.ledger import DeliveryClaim


def render_event(claim: DeliveryClaim, service_url: str | None) -> bytes:
    """The same for every attempt. ``service_url``: where receivers reach the service, if known."""
    kind, _, state = claim.type.partition(".")
    describe = _describe_batch if kind == "batch" else _describe_job
    event = {
        "type": claim.type,
        "timestamp": format_milliseconds(claim.time_ms),
        "data": describe(claim, state, service_url),
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _describe_job(claim: DeliveryClaim, state: str, service_url: str | None) -> dict[str, Any]:
    data = {"job_id": claim.subject_id, "status": state}
    if service_url and state == "completed":
        data["result_url"] = f"{service_url}/result/{claim.subject_id}"
    return data


def _describe_batch(claim: DeliveryClaim, state: str, service_url: str | None) -> dict[str, Any]:
    counts: dict[str, int] = json.loads(claim.counts)
    data: dict[str, Any] = {"batch_id": claim.subject_id, "status": state, **counts}
    if service_url:
        # Of a batch that was cancelled, too: what came before stays.
        data["results_url"] = f"{service_url}/batches/{claim.subject_id}/results"
    return data
