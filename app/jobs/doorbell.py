"""The doorbell: a Celery message that carries no job and only says "there is work".

The ledger's scripts ring it themselves, in the same step that changes the queue, so that no crash
comes between the two and no caller has to think of it. For that they need the message as Celery
would send it: a call without arguments after its message protocol 2, in the envelope of kombu's
Redis transport. A test compares it with one that Celery sends.
"""

import base64
import json

from app.core import keys

TASK_NAME = "classification.classify_batch"

BELL_ID = "BELL-ID"
"""Stands in the message where each bell's own id belongs."""


def render_message() -> str:
    """The message as it lies in the broker's list, with :data:`BELL_ID` for its id."""
    options = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = json.dumps([[], {}, options])
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": TASK_NAME,
            "id": BELL_ID,
            "root_id": BELL_ID,
            "parent_id": None,
            "group": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "()",
            "kwargsrepr": "{}",
        },
        "properties": {
            "correlation_id": BELL_ID,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": keys.DOORBELLS},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": BELL_ID,
        },
    }
    return json.dumps(message, separators=(",", ":"))
