"""Rounds: everybody in turn, again and again, so that what disturbs the machine disturbs all."""

from collections.abc import Callable, Iterable, Sequence

from benchmarks.participants import Participant, Session
from benchmarks.processes import ServerError
from benchmarks.results import Row, find_value

_CALM_CORES = 0.15
"""What the rest of a quiet machine takes at most: the kernel's own work for the measurement."""
_ATTEMPTS = 3

Report = Callable[[str], None]
"""Takes a line for the user, and is called once for each step of a measurement."""


def run_rounds(
    participants: Sequence[Participant], rounds: int, session: Session, report: Report
) -> list[Row]:
    """A B C … A B C …: a row for each participant in each round.

    What fails leaves a row with ``invalid``, so that the others of its round still count.
    """
    rows = []
    for number in range(rounds):
        rows += run_round(participants, number, session, report)
    return rows


def run_round(
    participants: Iterable[Participant], number: int, session: Session, report: Report
) -> list[Row]:
    """Each participant once."""
    rows: list[Row] = []
    for participant in participants:
        row: Row = {"participant": participant.name, "round": number}
        try:
            row |= _measure_undisturbed(participant, session)
            report(f"round {number + 1}: {participant.name} {row['rate']:.1f} images/s")
        except ServerError as error:
            row["invalid"] = str(error)[-500:]
            report(f"round {number + 1}: {participant.name} failed: {row['invalid'][-200:]}")
        rows.append(row)
    return rows


def _measure_undisturbed(participant: Participant, session: Session) -> Row:
    """Measured again while others took a good part of the machine; the least disturbed counts."""
    rows: list[Row] = []
    while len(rows) < _ATTEMPTS:
        rows.append(participant.measure(session))
        if rows[-1]["others_cores"] <= _CALM_CORES:
            break
    return min(rows, key=lambda row: float(row["others_cores"]))


def find_ratios(rows: Iterable[Row], ours: str, theirs: str, value: str = "rate") -> list[float]:
    """Ours by theirs, one for each round in which both are valid."""
    return [own / other for own, other in find_pairs(rows, ours, theirs, value)]


def find_pairs(
    rows: Iterable[Row], ours: str, theirs: str, value: str
) -> list[tuple[float, float]]:
    """Ours and theirs, one pair for each round in which both are valid."""
    by_round: dict[int, dict[str, float]] = {}
    for row in rows:
        if "invalid" not in row and row["participant"] in (ours, theirs):
            by_round.setdefault(row["round"], {})[row["participant"]] = find_value(row, value)
    return [
        (measured[ours], measured[theirs])
        for measured in by_round.values()
        if ours in measured and theirs in measured
    ]
