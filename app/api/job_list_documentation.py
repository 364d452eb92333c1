"""The words of /docs about the list of jobs."""

from typing import Any

from app.api.documentation import REQUEST_ID_HEADER, problem_responses
from app.core.errors import InvalidRequestError, ServiceUnavailableError
from app.jobs.job import JobState
from app.models.schemas import JobList

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 100

LIST: dict[str, Any] = {
    "summary": "List jobs",
    "description": "Your jobs, the newest first: those that have not ended, and ended ones for as "
    "long as they are kept. Jobs that come while you turn pages are on none of the later ones.",
    "response_description": "Some of the jobs, and where to go on.",
    "response_model": JobList,
    "openapi_extra": {
        "parameters": [
            {
                "name": "status",
                "in": "query",
                "description": "Only jobs with this status.",
                "schema": {"type": "string", "enum": list(JobState)},
            },
            {
                "name": "limit",
                "in": "query",
                "description": "How many to list at most.",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": LARGEST_LIMIT,
                    "default": DEFAULT_LIMIT,
                },
            },
            {
                "name": "cursor",
                "in": "query",
                "description": "The `next_cursor` of the page before.",
                "schema": {"type": "string"},
            },
        ]
    },
    "responses": {200: {"headers": REQUEST_ID_HEADER}}
    | problem_responses(InvalidRequestError, ServiceUnavailableError),
}
