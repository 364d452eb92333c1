"""Jobs that are claimed together, and how far they are."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from app.jobs.job import Claim, Outcome

# Whoever watches can't see steps that are closer together, so a fast batch is written once, at its
# end, and a slow one shows where it is and hands over each job as it is done.
PACE_SECONDS = 0.05

Clock = Callable[[], float]
"""Seconds that only grow, as from :func:`time.monotonic`."""


Item = TypeVar("Item")


class ClaimedBatch:
    """Jobs that are claimed together, and how far they are."""

    def __init__(self, clock: Clock) -> None:
        self.claims: list[Claim] = []
        self.under_way: list[Claim] = []
        """Those being decoded or classified now."""
        self.outcomes: list[Outcome] = []
        """What is known and not yet reported to the ledger."""
        self._clock = clock
        self._started = self._marked = clock()
        self.worked_seconds = 0.0
        """Decoding and classifying, without the ledger."""
        self._unwanted: frozenset[str] = frozenset()

    def age_seconds(self) -> float:
        return self._clock() - self._started

    def is_due(self) -> bool:
        """Whether it is time to write to the ledger again."""
        return self._clock() - self._marked >= PACE_SECONDS

    def mark(self) -> None:
        self._marked = self._clock()

    def drop(self, job_ids: frozenset[str]) -> None:
        """Do no more for these jobs: their owners or other workers have taken them back."""
        if job_ids:
            dropped = [claim for claim in self.claims if claim.job_id in job_ids - self._unwanted]
            self.outcomes += [Outcome.cancelled(claim) for claim in dropped]
            self._unwanted |= job_ids

    def keep_wanted(self, items: Sequence[tuple[Claim, Item]]) -> Sequence[tuple[Claim, Item]]:
        """Those whose jobs were not dropped."""
        if not self._unwanted:
            return items
        return [item for item in items if item[0].job_id not in self._unwanted]
