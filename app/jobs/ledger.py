"""The worker's half of the ledger, the one truth about every job, kept in Redis by Lua scripts.

The API's half is :mod:`app.jobs.intake`. Every method is one round trip, atomic, and safe to
repeat.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, cast
from uuid import uuid4

import redis

from app.core import keys
from app.core.config import Settings
from app.core.direct_script import DirectScript
from app.jobs.answer_options import parse_options
from app.jobs.job import TERMINAL_STATES, Answer, Claim, DeathReason, Outcome, Stage
from app.jobs.script import Rules, render_script

HANDED_BACK = "handed_back"
"""The reason of a claim that was given up in good health: its job has lost nothing."""

# Records in one round trip: Redis serves others between two.
_LARGEST_LOOK = 1000


class _Script(Protocol):
    def __call__(self, *, args: Sequence[Any] = ()) -> Any: ...


class Turn(NamedTuple):
    """What a worker process's turn brought.

    ``ended``: ids of jobs that have ended, or were too late to be claimed: erase their uploads. Not
    among them are dead letters, and jobs that somebody else has claimed since.
    """

    ended: list[str]
    claims: list[Claim]


class RedisLedger:
    """Claim, report, finish, give back, recover. One per process."""

    def __init__(self, client: "redis.Redis", settings: Settings) -> None:
        self._redis = client
        self._batch_size = settings.queue.batch_size
        rules = Rules.from_settings(settings)

        def register(name: str) -> _Script:
            return cast(_Script, client.register_script(render_script(name, rules)))

        self._turn = DirectScript(client.connection_pool, render_script("turn", rules))
        self._progress = register("progress")
        self._release = register("release")
        self._move = register("move")
        self._renew = register("renew")
        self._sweep = register("sweep")
        self._beat = register("beat")

    def take_turn(
        self, outcomes: Iterable[Outcome], holder: str, answer: Answer, wanted: int
    ) -> Turn:
        """Report what came of claims, and claim up to a batch of jobs for a worker process.

        ``wanted``: it takes no more. What ``holder`` still holds is given again first, so a lost
        answer loses no job.
        """
        about = [answer.model, answer.version, answer.engine, answer.identity]
        ended, given = self._turn(args=[holder, wanted, *about, *_words(outcomes)])
        fields = (given[position::6] for position in range(6))
        claims = [
            Claim(
                job_id.decode(),
                int(attempt),
                None if patience < 0 else int(patience),
                int(retries),
                parse_options(options.decode()),
                bool(solo),
            )
            for job_id, attempt, patience, retries, options, solo in zip(*fields, strict=True)
        ]
        return Turn(_decode(ended), claims)

    def claim(self, holder: str, answer: Answer) -> Turn:
        """A turn of which nothing is to be reported."""
        return self.take_turn((), holder, answer, self._batch_size)

    def hear_bell(self, seconds: float) -> bool:
        """Answer a doorbell, or wait for one for so long: whether there was one."""
        return self._redis.brpop([keys.DOORBELLS], timeout=seconds) is not None

    def finish(self, outcomes: Iterable[Outcome]) -> list[str]:
        """Report what came of claims. Returns :attr:`Turn.ended`."""
        ended, _ = self._turn(args=["", 0, "", "", "", "", *_words(outcomes)])
        return _decode(ended)

    def report_progress(
        self, claims: Iterable[Claim], progress: int, stage: Stage
    ) -> frozenset[str]:
        """Say that claimed jobs are ``progress`` percent done and in ``stage``.

        Returns the ids of those that need no more work: cancelled, erased, or somebody else's.
        """
        pairs = [word for claim in claims for word in (claim.job_id, claim.attempt)]
        return frozenset(_decode(self._progress(args=[progress, stage, *pairs]) if pairs else ()))

    def renew(self, holders: Iterable[str]) -> None:
        """Prolong every lease of these worker processes, all of them alive and at work."""
        names = list(holders)
        if names:
            self._renew(args=names)

    def release(self, holder: str, reason: DeathReason, claims: Iterable[Claim] = ()) -> list[str]:
        """Take back what a worker process held when it was lost or stopped: all, or ``claims``.

        The jobs run alone from then on. Returns the ids of jobs that have ended: erase their
        uploads.
        """
        return self._give_back(holder, reason, claims)

    def hand_back(self, holder: str, claims: Iterable[Claim] = ()) -> list[str]:
        """Put what a healthy worker process holds back into the queue: all, or ``claims``.

        Returns the ids of jobs that have ended: erase their uploads.
        """
        return self._give_back(holder, HANDED_BACK, claims)

    def _give_back(self, holder: str, reason: str, claims: Iterable[Claim]) -> list[str]:
        ids = [claim.job_id for claim in claims]
        return _decode(self._release(args=[holder, reason, *ids]))

    def move(self, holder: str, other: str, claims: Iterable[Claim]) -> None:
        """Have claims held under another name of the same worker process."""
        self._move(args=[holder, other, *(claim.job_id for claim in claims)])

    def sweep(self) -> tuple[int, list[str]]:
        """Mend what nobody answered for, unless another worker did just now.

        Returns (leases that had run out, ids of jobs that have ended: erase their uploads).
        """
        reply = self._sweep()
        if reply is None:
            return 0, []
        return int(reply[0]), _decode(reply[1:])

    def beat(self, name: str, document: str, ttl_ms: int, identity: str) -> int:
        """Say that a worker lives; ``document`` is what it says of itself, as JSON.

        ``identity``: of its model, as in :class:`Answer`.

        Returns how many other workers have fallen silent since anybody looked.
        """
        return int(self._beat(args=[name, document, ttl_ms, identity]))

    def find_ended(self, job_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that have ended for good: nobody wants their uploads any more."""
        return [
            job_id
            for job_id, (state, dead) in zip(job_ids, self._read_ends(job_ids), strict=True)
            if state is not None and state.decode() in TERMINAL_STATES and dead is None
        ]

    def find_unknown(self, job_ids: Sequence[str]) -> list[str]:
        """Those ids that belong to no job: it was not accepted, or its record has expired."""
        return [
            job_id
            for job_id, (state, _) in zip(job_ids, self._read_ends(job_ids), strict=True)
            if state is None
        ]

    def _read_ends(self, job_ids: Sequence[str]) -> list[tuple[bytes | None, bytes | None]]:
        """State and death's reason of each."""
        ends: list[tuple[bytes | None, bytes | None]] = []
        for start in range(0, len(job_ids), _LARGEST_LOOK):
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in job_ids[start : start + _LARGEST_LOOK]:
                pipeline.hmget(keys.job(job_id), "state", "dead")
            ends += pipeline.execute()
        return ends

    def identify(self) -> str:
        """What tells this ledger from those in other Redis databases."""
        self._redis.set(keys.LEDGER_ID, uuid4().hex, nx=True)
        return cast(bytes, self._redis.get(keys.LEDGER_ID)).decode()


def _words(outcomes: Iterable[Outcome]) -> list[str | int]:
    """Outcomes as the script takes them."""
    return [
        word
        for outcome in outcomes
        for word in (
            outcome.claim.job_id,
            outcome.claim.attempt,
            outcome.verdict,
            outcome.body,
            outcome.reason,
            outcome.delay_ms,
        )
    ]


def _decode(job_ids: Iterable[bytes]) -> list[str]:
    return [job_id.decode() for job_id in job_ids]
