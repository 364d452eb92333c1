"""The words of /docs about /health."""

from typing import Any

from app.api.documentation import REQUEST_ID_HEADER, RETRY_AFTER_HEADER, problem_responses
from app.core.errors import ServiceUnavailableError
from app.models.schemas import Health, Live, Ready

HEALTH: dict[str, Any] = {
    "summary": "The state of the service",
    "response_model": Health,
    "description": "`healthy`, `degraded` with reasons, or `unhealthy` with 503. Answers within "
    "100 ms even while Redis hangs.",
    "responses": {
        200: {"headers": REQUEST_ID_HEADER},
        503: {
            "model": Health,
            "description": "Redis does not answer: no job can be accepted.",
            "headers": REQUEST_ID_HEADER | RETRY_AFTER_HEADER,
        },
    }
    | problem_responses(),
}

LIVE: dict[str, Any] = {
    "summary": "Is the process alive?",
    "description": "Never touches Redis: for a supervisor that restarts what hangs.",
    "response_model": Live,
    "responses": problem_responses(),
}

READY: dict[str, Any] = {
    "summary": "Can jobs be accepted?",
    "description": "For a load balancer: 503 while Redis is away.",
    "response_model": Ready,
    "responses": problem_responses(ServiceUnavailableError),
}
