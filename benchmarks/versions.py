"""This checkout of the service beside another one: what the changes between them cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import BenchmarkModel
from benchmarks.participants import Participant, ServiceParticipant, Session
from benchmarks.results import Row
from benchmarks.rounds import Report, run_round
from benchmarks.single_service import measure_acceptance
from benchmarks.workspace import ROOT

OURS = "this checkout"
BASELINE = "baseline"

_COMMAND_LINE = Path("app", "cli.py")


@dataclass(frozen=True)
class AcceptanceParticipant:
    """One API process without workers, on a Redis that is started as this checkout does it."""

    name: str
    variables: Mapping[str, str]

    def measure(self, session: Session) -> Row:
        """Uploads that it accepts."""
        return measure_acceptance(session, **self.variables)


def is_checkout(folder: Path) -> bool:
    """Whether the service's code lies there."""
    return (folder / _COMMAND_LINE).is_file()


def classifying(version: str) -> str:
    """The participant whose jobs are classified."""
    return f"classifying: {version}"


def accepting(version: str) -> str:
    """The participant that only accepts uploads."""
    return f"accepting: {version}"


def run_versions(
    baseline: Path, model: BenchmarkModel, rounds: int, session: Session, report: Report
) -> list[Row]:
    """A B, B A, A B …: what one leaves behind in the machine meets both alike."""
    checkouts = [(BASELINE, baseline.resolve()), (OURS, ROOT)]
    rows = []
    for number in range(rounds):
        rows += run_round(_create_participants(checkouts, model), number, session, report)
        checkouts.reverse()
    return rows


def _create_participants(
    checkouts: Sequence[tuple[str, Path]], model: BenchmarkModel
) -> list[Participant]:
    """Both checkouts classify, then both accept: what is compared lies close in time."""
    code = [(version, {"PYTHONPATH": str(folder)}) for version, folder in checkouts]
    return [
        *(ServiceParticipant(classifying(version), model, path) for version, path in code),
        *(AcceptanceParticipant(accepting(version), path) for version, path in code),
    ]
