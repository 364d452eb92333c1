"""What the worker's main process knows of a doorbell that a child is answering."""

from typing import Any

from celery import Task
from celery.worker.request import Request

# Children that have taken a bell and that nobody has asked about yet.
_answering: set[int] = set()

# Children whose end was ordered and that nobody has asked about yet.
_timed_out: set[int] = set()


class DoorbellRequest(Request):
    """Celery's request without acknowledgements; it notes which child reached its time limit."""

    def acknowledge(self) -> None:
        """Do nothing: bells are consumed without (``no_ack``), and kombu would count each."""

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Called by the pool: the child ``pid`` begins."""
        _answering.add(int(pid))
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Called by the pool: after the hard limit just before it kills the child."""
        if not soft and self.worker_pid is not None:
            _timed_out.add(int(self.worker_pid))
        super().on_timeout(soft, timeout)


class DoorbellTask(Task[..., None]):
    """The base of this application's tasks."""

    Request = f"{__name__}:DoorbellRequest"


def take_answering() -> set[int]:
    """The children that have begun to answer a bell since this was asked last."""
    global _answering
    taken, _answering = _answering, set()
    return taken


def take_timed_out(pid: int) -> bool:
    """Whether this child was killed at its hard time limit. Answers so once: pids come again."""
    is_timed_out = pid in _timed_out
    _timed_out.discard(pid)
    return is_timed_out
