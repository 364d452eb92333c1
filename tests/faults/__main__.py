"""The long run: every fault several times, under load, each job accounted for."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults.drill import LONG, Scenario
from tests.faults.invariant import Verdict, group_verdicts
from tests.faults.scenarios import SCENARIOS, Theatre

# Where the table is in a document.
_BEGIN, _END = "<!-- faults -->", "<!-- end of faults -->"

_COLUMNS = (
    "fault",
    "jobs",
    "seeds",
    "lost",
    "duplicated",
    "wrong",
    "recovery, median",
    "recovery, worst",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One fault's line in the table."""

    name: str
    fault: str
    seeds: int
    verdict: Verdict

    def cells(self) -> list[str]:
        """In the order of the columns."""
        verdict = self.verdict
        recoveries = verdict.recoveries_seconds
        median = f"{statistics.median(recoveries):.1f} s" if recoveries else "–"
        worst = f"{max(recoveries):.1f} s" if recoveries else "–"
        counts = (len(verdict.lost), len(verdict.duplicated), len(verdict.wrong))
        numbers = (verdict.jobs, self.seeds, *counts)
        return [self.fault, *(f"{number:,}" for number in numbers), median, worst]


def render_table(lines: Iterable[Line]) -> str:
    """The table in Markdown, with a last line for all faults together."""
    known = list(lines)
    total = group_verdicts(line.verdict for line in known)
    whole = Line("all", "all", sum(line.seeds for line in known), total)
    rows = [list(_COLUMNS), ["---"] * len(_COLUMNS), *(line.cells() for line in (*known, whole))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def write_table(document: Path, table: str) -> None:
    """Put the table where the document marks its place, instead of what is there."""
    before, rest = document.read_text(encoding="utf-8").split(_BEGIN)
    _, after = rest.split(_END)
    text = f"{before}{_BEGIN}\n\n{table}\n\n{_END}{after}"
    document.write_text(text, encoding="utf-8")


def main() -> int:
    """Run, write, print. Exit code 1 when the promise was broken."""
    options = _parse_options()
    chosen = [item for item in SCENARIOS if not options.only or item.name in options.only]
    console = Console(stderr=True)
    for scenario in list(chosen):
        obstacle = scenario.find_obstacle()
        if obstacle:
            console.print(f"left out: {scenario.fault} ({obstacle})")
            chosen.remove(scenario)
    jobs = max(options.jobs // max(len(chosen) * options.seeds, 1), 1)
    lines = _run(chosen, options.seeds, options.first_seed, jobs, console)
    if options.output:
        raw = [asdict(line) for line in lines]
        options.output.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    table = render_table(lines)
    print(table)
    if options.document:
        write_table(options.document, table)
    return 0 if all(line.verdict.is_good() for line in lines) else 1


def _run(
    scenarios: Sequence[Scenario], seeds: int, first_seed: int, jobs: int, console: Console
) -> list[Line]:
    lines = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("", total=len(scenarios) * seeds)
        with Theatre(replace(LONG, jobs=jobs)) as theatre:
            for scenario in scenarios:
                verdicts = []
                for seed in range(first_seed, first_seed + seeds):
                    progress.update(bar, description=f"{scenario.fault}, seed {seed}")
                    verdicts.append(_run_once(theatre, scenario, seed, console))
                    progress.advance(bar)
                total = group_verdicts(verdicts)
                lines.append(Line(scenario.name, scenario.fault, seeds, total))
    return lines


def _run_once(theatre: Theatre, scenario: Scenario, seed: int, console: Console) -> Verdict:
    started = time.monotonic()
    try:
        verdict = theatre.run(scenario, seed)
    except AssertionError as error:
        verdict = Verdict(unmet=[str(error)])
    seconds = time.monotonic() - started
    if not verdict.is_good():
        console.print(f"{scenario.name}, seed {seed}, {seconds:.0f} s: {verdict.describe()}")
    return verdict


def _parse_options() -> argparse.Namespace:
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Does every kind of harm to the running service, under load, and checks that "
        "each accepted job reaches exactly one terminal state with the right result. Prints a "
        "table in Markdown. Takes about an hour with the defaults.",
        epilog=f"Names of faults: {names}.",
    )
    parser.add_argument(
        "--jobs", type=int, default=50_000, help="jobs in all, about (default: %(default)s)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="runs of each fault (default: %(default)s)"
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, help="to repeat one run (default: %(default)s)"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this fault alone; may be repeated"
    )
    parser.add_argument("--output", type=Path, help="file for the raw results, JSON")
    parser.add_argument(
        "--document", type=Path, help="Markdown file whose table of faults is replaced"
    )
    options = parser.parse_args()
    unknown = set(options.only or ()) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {names}")
    return options


if __name__ == "__main__":
    sys.exit(main())
