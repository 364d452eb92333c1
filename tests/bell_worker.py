"""A worker with the service's Celery settings that needs no model, ledger or jobs: it counts bells.

Each child says "began <pid>" and "ended <pid>" around a bell, the main process "gone <pid>
<whether at its time limit>" when a child is no longer among the pool's.
"""

import os
import time
from typing import Any

from celery import bootsteps
from celery.exceptions import SoftTimeLimitExceeded

from app.celery_app import create_celery_app
from app.core.config import get_settings
from app.jobs.doorbell import TASK_NAME
from app.tasks.requests import take_timed_out

BELL_SECONDS = "BELL_SECONDS"
IGNORES_SOFT_LIMIT = "IGNORES_SOFT_LIMIT"

celery_app = create_celery_app(get_settings())
celery_app.conf.include = []


@celery_app.task(name=TASK_NAME)
def answer() -> None:
    say("began", os.getpid())
    end = time.monotonic() + float(os.environ.get(BELL_SECONDS, "0"))
    while (rest := end - time.monotonic()) > 0:
        try:
            time.sleep(rest)
        except SoftTimeLimitExceeded:
            say("interrupted", os.getpid())
            if IGNORES_SOFT_LIMIT not in os.environ:
                return
    say("ended", os.getpid())


def say(*words: object) -> None:
    # One write: lines of several processes shall not mix.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class WatchStep(bootsteps.StartStopStep):
    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def start(self, worker: Any) -> None:
        self._children: set[int] = set()
        worker.timer.call_repeatedly(0.05, self._watch, (worker.pool,))

    def _watch(self, pool: Any) -> None:
        alive = set(pool.info["processes"])
        for pid in self._children - alive:
            say("gone", pid, take_timed_out(pid))
        self._children = alive


celery_app.steps["worker"].add(WatchStep)
