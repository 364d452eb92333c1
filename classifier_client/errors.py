"""What can go wrong between a program and the service."""

import re
from collections.abc import Mapping
from typing import Any


class ClassifierError(Exception):
    """Raised when the service can't be asked or does not do what it was asked; see subclasses."""


class UnreachableError(ClassifierError):
    """Raised when nothing answers at the service's address, or something else does."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        # Messages are logged: without the user and password that an address may hold.
        shown = re.sub(r"//.*@", "//***@", url)
        super().__init__(f"no classification service at {shown}: {reason}")


class NotFinishedError(ClassifierError, TimeoutError):
    """Raised when a job has not ended in the time it was given; it goes on all the same.

    ``job_id``: ``None`` where the service did not say in that time whether it accepted the image.
    """

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id} has not ended yet" if job_id else "no answer in time")


class ProblemError(ClassifierError):
    """Raised when the service refuses a request, or a job ended without a result.

    ``code``: the stable name of the problem, for programs; empty when it is none of the service's.
    ``status``: of the HTTP answer. ``job_id``: the job in question, ``None`` where there is none.
    ``document``: the whole problem document (RFC 9457).
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.document = document
        self.code = str(document.get("code", ""))
        self.title = str(document.get("title", f"HTTP {status}"))
        self.detail = str(document.get("detail", ""))
        job_id = document.get("job_id")
        self.job_id = None if job_id is None else str(job_id)
        super().__init__(f"{self.title}: {self.detail}")
