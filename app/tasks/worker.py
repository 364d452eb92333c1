"""What makes a Celery worker ours: the model in each child, heartbeat, leases, sweeper.

The worker's main process never loads a model. Before it starts its children it settles which
engine they use (or stops, if the model is broken); then, from a timer, it says that it lives,
prolongs the leases of children that are at work, takes back what dead children held, and sweeps.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from celery import bootsteps
from celery.signals import after_setup_logger, worker_process_init
from celery.worker import state
from redis.exceptions import RedisError

from app.celery_app import celery_app
from app.core import keys
from app.core.config import EngineName, Settings, get_settings
from app.core.errors import ConfigurationError
from app.core.redis_client import create_client, find_policy_warning
from app.jobs.job import DeathReason
from app.jobs.ledger import RedisLedger
from app.jobs.payload_stores import create_payload_store
from app.jobs.service import Heartbeat
from app.models.ml_models import PreparedModel, load_model, prepare_model
from app.tasks.classification import BatchClassifier, HandBackRequested, set_classifier
from app.tasks.guarded_jobs import guarded_holder_name
from app.tasks.requests import take_answering, take_timed_out

logger = logging.getLogger(__name__)

# A child that died is noticed this soon; asking the pool for its process ids costs microseconds.
_WATCH_SECONDS = 0.5

# How often uploads are sought that belong to no job, and how long nothing was added to them then: a
# slow sender may take its time between two pieces of a mebibyte.
_SWEEP_UPLOADS_SECONDS = 60
_BROKEN_OFF_SECONDS = 3600

# Tells a child to hand back what it has not finished. Celery's own, for its soft time limit, is 1.
_HAND_BACK = signal.SIGUSR2

# For a child to hand back what it has not finished, once it is told to.
_INTERRUPT_SECONDS = 1

# Silent heartbeats before a worker counts as gone.
_MISSED_BEATS = 3

# Classifying takes every core that it gets. The API, Redis and the worker's main process need
# little, but at once: the scheduler lets them go first.
_NICENESS = 5

# How children learn the name of the worker that they belong to, forked or spawned.
_NAME_VARIABLE = "CLASSIFIER_WORKER_NAME"

# How spawned children learn which engine the main process settled, the rest of which they find in
# the cache: a trial that took too long is not kept there, and they must not begin it again.
_ENGINE_VARIABLE = "CLASSIFIER_WORKER_ENGINE"

# What the main process settled; forked children inherit it.
_prepared: PreparedModel | None = None


def create_worker_name(hostname: str) -> str:
    """Unique among the workers of one Redis, now and ever.

    Host and process id alone are not: a container that starts again has both of its predecessor,
    and would take the jobs over that killed it, under the same attempt number.
    """
    return f"{hostname}/{os.getpid()}/{uuid4().hex[:8]}"


def holder_name(worker: str, child_pid: int) -> str:
    """Who holds a claim: one child of one worker."""
    return f"{worker}/{child_pid}"


@after_setup_logger.connect
def quieten_doorbells(**_: Any) -> None:
    """Celery's two lines a message say nothing here: a message is only a doorbell."""
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _request_hand_back(*_: object) -> None:
    raise HandBackRequested


@worker_process_init.connect
def open_classifier(**_: Any) -> None:
    """In each child, before it takes work: connect, load the model, warm it up."""
    os.nice(_NICENESS)
    signal.signal(_HAND_BACK, _request_hand_back)
    settings = get_settings()
    client = create_client(settings.redis)
    try:
        model = load_model(_prepared or _find_prepared(settings), settings)
    except Exception:
        # Celery would log it and let the child take work that it can't do.
        logger.exception("the model can't be loaded")
        raise SystemExit(1) from None
    set_classifier(
        BatchClassifier(
            holder_name(os.environ[_NAME_VARIABLE], os.getpid()),
            RedisLedger(client, settings),
            create_payload_store(settings, client),
            model,
            settings,
        )
    )


def _find_prepared(settings: Settings) -> PreparedModel:
    engine = EngineName(os.environ[_ENGINE_VARIABLE])
    return prepare_model(settings.model_copy(update={"engine": engine}))


class ModelStep(bootsteps.Step):
    """Settles name, model and engine before any child exists."""

    def create(self, worker: Any) -> None:
        global _prepared
        os.environ[_NAME_VARIABLE] = create_worker_name(worker.hostname)
        try:
            _prepared = prepare_model(get_settings())
        except ConfigurationError as error:
            print(f"classifier: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        os.environ[_ENGINE_VARIABLE] = _prepared.engine


class LedgerStep(bootsteps.StartStopStep):
    """Keeps the ledger right for this worker's children, and for everybody else's that are gone."""

    requires = (
        "celery.worker.components:Timer",
        "celery.worker.components:Pool",
        ModelStep,
    )

    def __init__(self, worker: Any, **_: Any) -> None:
        super().__init__(worker)
        self._keeper: LedgerKeeper | None = None
        self._heartbeat: Any = None

    def start(self, worker: Any) -> None:
        settings = get_settings()
        assert _prepared is not None, "ModelStep comes first"
        keeper = self._keeper = LedgerKeeper(worker, _prepared, settings)
        timer = worker.timer
        self._heartbeat = timer.call_repeatedly(
            settings.worker.heartbeat_seconds, _survive, (keeper.beat,)
        )
        for seconds, action in (
            (settings.queue.lease_seconds / 3, keeper.renew),
            (_WATCH_SECONDS, keeper.watch_children),
            (settings.queue.sweep_seconds, keeper.sweep),
            (_SWEEP_UPLOADS_SECONDS, keeper.sweep_uploads),
        ):
            timer.call_repeatedly(seconds, _survive, (action,))
        _survive(keeper.check_policy)
        _survive(keeper.check_uploads)
        _survive(keeper.beat)

    def stop(self, worker: Any) -> None:
        # Children may still be at work, and Celery waits for them. The timer goes on meanwhile: all
        # but the heartbeat is still needed.
        keeper = self._keeper
        if keeper is not None:
            self._heartbeat.cancel()
            _survive(keeper.say_goodbye)
            grace_seconds = get_settings().worker.grace_seconds
            worker.timer.call_after(grace_seconds, keeper.interrupt)
            worker.timer.call_after(grace_seconds + _INTERRUPT_SECONDS, _survive, (keeper.kill,))


def _survive(action: Callable[[], None]) -> None:
    """Run one of the keeper's duties; the next round makes up for one that fails."""
    try:
        action()
    except (RedisError, OSError) as error:
        logger.warning("%s: %s", type(error).__name__, error)


class LedgerKeeper:
    """The duties of a worker's main process."""

    def __init__(self, worker: Any, model: PreparedModel, settings: Settings) -> None:
        self._worker = worker
        self._name = os.environ[_NAME_VARIABLE]
        self._model = model
        self._heartbeat_ms = int(settings.worker.heartbeat_seconds * _MISSED_BEATS * 1000)
        self._redis = create_client(settings.redis)
        self._ledger = RedisLedger(self._redis, settings)
        self._payloads = create_payload_store(settings, self._redis)
        self._children: set[int] = set()
        self._gone: dict[int, DeathReason] = {}

    def check_policy(self) -> None:
        """Warn when Redis may delete queued jobs."""
        warning = find_policy_warning(self._redis.info("memory"))
        if warning:
            logger.warning(warning)

    def check_uploads(self) -> None:
        """Warn when the uploads in the data folder are not all of this ledger's jobs."""
        if not self._payloads.belongs_to(self._ledger.identify()):
            logger.warning(
                "the data folder holds uploads of another Redis: left-overs in it are not erased; "
                "use a data folder with one Redis"
            )

    def beat(self) -> None:
        """Say that this worker lives, what it runs, and what is wrong with that."""
        beat = Heartbeat(
            name=self._name,
            model=self._model.manifest.name,
            engine=self._model.engine,
            processes=len(self._worker.pool.info["processes"]),
            reasons=list(self._model.reasons),
        )
        document, identity = beat.model_dump_json(), self._model.identity
        if self._ledger.beat(self._name, document, self._heartbeat_ms, identity):
            self._erase_ended()

    def say_goodbye(self) -> None:
        """Count this worker as gone from now on."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.delete(keys.worker(self._name))
        pipeline.zrem(keys.WORKERS, self._name)
        pipeline.execute()

    def renew(self) -> None:
        """Prolong the leases of the children that are at work.

        Of those alone: a child that is idle and yet holds jobs has lost them on the way, and
        their leases must run out.
        """
        holders = [holder_name(self._name, pid) for pid in self._busy_children()]
        self._ledger.renew([*holders, *map(guarded_holder_name, holders)])

    def _busy_children(self) -> set[int]:
        return {request.worker_pid for request in set(state.active_requests) if request.worker_pid}

    def watch_children(self) -> None:
        """Take back at once what children held that died."""
        # When it sees the child's pipe close before the child itself has gone, Celery looks again
        # five seconds later.
        self._worker.pool.maintain_pool()
        alive = set(self._worker.pool.info["processes"])
        # A child may begin and die between two looks at the pool.
        for pid in (self._children | take_answering()) - alive:
            timed_out = take_timed_out(pid)
            self._gone[pid] = DeathReason.TIMED_OUT if timed_out else DeathReason.WORKER_LOST
        self._children = alive
        for pid, reason in list(self._gone.items()):
            # While Redis is away they are remembered.
            holder = holder_name(self._name, pid)
            self._payloads.delete_many(self._ledger.release(holder, reason))
            # Whatever killed the child, it was not in here.
            self._payloads.delete_many(self._ledger.hand_back(guarded_holder_name(holder)))
            del self._gone[pid]
            self._erase_ended()
            logger.info("child %d is gone, what it held is back in the queue", pid)

    def interrupt(self) -> None:
        """Have children hand back what they have not finished: the worker's grace is over."""
        for pid in self._busy_children():
            logger.warning("child %d is told to hand back what it has not finished", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, _HAND_BACK)

    def kill(self) -> None:
        """End children that do not listen, and hand back for them."""
        deaf = self._busy_children()
        for pid in deaf:
            logger.warning("child %d is killed and what it held handed back", pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in deaf:
            holder = holder_name(self._name, pid)
            for name in (holder, guarded_holder_name(holder)):
                self._payloads.delete_many(self._ledger.hand_back(name))

    def sweep(self) -> None:
        """Mend what nobody answered for, unless another worker just did."""
        late, ended = self._ledger.sweep()
        self._payloads.delete_many(ended)
        if late:
            logger.warning("swept: %d leases had run out", late)
            self._erase_ended()

    def _erase_ended(self) -> None:
        """Erase uploads whose jobs have ended, for a process that died between the two."""
        self._payloads.delete_many(self._ledger.find_ended(self._payloads.list_ids()))

    def sweep_uploads(self) -> None:
        """Erase uploads that were broken off or not accepted.

        Only where all uploads are this ledger's: another's jobs may wait for theirs.
        """
        if not self._payloads.belongs_to(self._ledger.identify()):
            return
        # Of jobs that ended with another, or in a turn whose answer was lost.
        self._erase_ended()
        unknown = self._ledger.find_unknown(self._payloads.list_ids(_BROKEN_OFF_SECONDS))
        self._payloads.delete_many(unknown)
        if unknown:
            logger.info("erased %d uploads that belong to no job", len(unknown))


celery_app.steps["worker"].update((ModelStep, LedgerStep))
