"""Everything that `python -m benchmarks` can measure; each writes one file of results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.comparisons import AUTO, against_bare_loops, out_of_the_box, same_engine
from benchmarks.listeners import measure_listeners
from benchmarks.machine import find_commit
from benchmarks.models import BenchmarkModel, prepare_benchmark_model
from benchmarks.participants import Participant, Session
from benchmarks.peer_servers import PEERS, Peer
from benchmarks.processes import ServerError
from benchmarks.profiling import install_profiler, measure_profile
from benchmarks.results import Row, write_results
from benchmarks.rounds import Report, run_rounds
from benchmarks.scale import QUEUED_JOBS, measure_full_queue, measure_redis_limit
from benchmarks.single_service import (
    measure_acceptance,
    measure_cache_hits,
    measure_idle,
    measure_latency,
    measure_start,
)
from benchmarks.trials import install_granian, trial_participants
from benchmarks.versions import run_versions
from benchmarks.webhooks import receiver_participants


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    queued_jobs: int = QUEUED_JOBS
    baseline: Path | None = None
    """Another checkout of the service."""


class Run(Protocol):
    """Measures, and writes a file of results."""

    def __call__(
        self, session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
    ) -> None: ...


@dataclass(frozen=True)
class Measurement:
    """``name`` is what --only takes; the results' file is called after it."""

    name: str
    run: Run
    compares_peers: bool = False
    needs_baseline: bool = False


def _compare(name: str, choose: Callable[[Sequence[Peer]], Sequence[Participant]]) -> Run:
    def run(
        session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
    ) -> None:
        rows = run_rounds(choose(peers), plan.rounds, session, report)
        versions = {peer.title: peer.version() for peer in peers}
        titles = {peer.name: peer.title for peer in PEERS}
        write_results(
            results,
            name,
            rows,
            rounds=plan.rounds,
            seconds=plan.seconds,
            peers=versions,
            titles=titles,
        )

    return run


def _repeat(name: str, measure: Callable[[Session, BenchmarkModel], Row]) -> Run:
    """Something of our own service, once a round."""

    def run(
        session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
    ) -> None:
        model, rows = prepare_benchmark_model(AUTO), list[Row]()
        for number in range(plan.rounds):
            row: Row = {"round": number}
            try:
                row |= measure(session, model)
            except ServerError as error:
                row["invalid"] = str(error)[-500:]
            rows.append(row)
            report(f"round {number + 1}: {_describe(row)}")
        write_results(
            results, name, rows, rounds=plan.rounds, seconds=plan.seconds, engine=model.engine
        )

    return run


def _describe(row: Row) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in row.items()
        if not isinstance(value, dict) and name != "round"
    )


def _run_overhead(
    session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
) -> None:
    participants = against_bare_loops()
    rows = run_rounds(participants, plan.rounds, session, report)
    engine = prepare_benchmark_model(AUTO).engine
    write_results(
        results, "overhead", rows, rounds=plan.rounds, seconds=plan.seconds, engine=engine
    )


def _run_webhooks(
    session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
) -> None:
    participants = receiver_participants(prepare_benchmark_model(AUTO))
    rows = run_rounds(participants, plan.rounds, session, report)
    write_results(results, "webhooks", rows, rounds=plan.rounds, seconds=plan.seconds)


def _run_scale(
    session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
) -> None:
    rows, memory = measure_full_queue(session.folder, plan.queued_jobs, report)
    write_results(results, "full_queue", rows, jobs=plan.queued_jobs, bytes_per_job=memory)
    rows = measure_redis_limit(session.folder, plan.rounds, plan.seconds, report)
    write_results(results, "redis_limit", rows, rounds=plan.rounds, seconds=plan.seconds)


def _run_trials(
    session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
) -> None:
    install_granian()
    participants = trial_participants(prepare_benchmark_model(AUTO))
    rows = run_rounds(participants, plan.rounds, session, report)
    variants = [
        {"participant": each.name, "what": each.variant.what, "variant": each.variant.name,
         "note": each.variant.note}
        for each in participants
    ]  # fmt: skip
    write_results(
        results, "trials", rows, rounds=plan.rounds, seconds=plan.seconds, variants=variants
    )


def _run_profile(
    session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
) -> None:
    install_profiler()
    try:
        rows = measure_profile(session, prepare_benchmark_model(AUTO))
    except ServerError as error:
        report(f"no profile: {error}")
        return
    report(_describe(rows[0]))
    write_results(results, "profile", rows, seconds=plan.seconds)


def _run_versions(
    session: Session, plan: Plan, peers: Sequence[Peer], results: Path, report: Report
) -> None:
    assert plan.baseline is not None
    model = prepare_benchmark_model(AUTO)
    rows = run_versions(plan.baseline, model, plan.rounds, session, report)
    write_results(
        results,
        "versions",
        rows,
        rounds=plan.rounds,
        seconds=plan.seconds,
        engine=model.engine,
        baseline=find_commit(plan.baseline),
    )


MEASUREMENTS = (
    Measurement("same_engine", _compare("same_engine", same_engine), compares_peers=True),
    Measurement("out_of_the_box", _compare("out_of_the_box", out_of_the_box), compares_peers=True),
    Measurement("overhead", _run_overhead),
    Measurement("latency", _repeat("latency", measure_latency)),
    Measurement(
        "acceptance", _repeat("acceptance", lambda session, _: measure_acceptance(session))
    ),
    Measurement("cache_hits", _repeat("cache_hits", measure_cache_hits)),
    Measurement("idle", _repeat("idle", measure_idle)),
    Measurement("listeners", _repeat("listeners", lambda session, _: measure_listeners(session))),
    Measurement("webhooks", _run_webhooks),
    Measurement("start", _repeat("start", measure_start)),
    Measurement("scale", _run_scale),
    Measurement("trials", _run_trials),
    Measurement("profile", _run_profile),
    Measurement("versions", _run_versions, needs_baseline=True),
)
