"""Every fault of the suite, and the clusters that they happen to."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.faults import connection_faults, engine_faults, process_faults, resource_faults
from tests.faults.cluster import Cluster
from tests.faults.drill import PATIENCE_SECONDS, Drill, Pace, Scenario, Setup
from tests.faults.invariant import Verdict
from tests.faults.pictures import Prediction, ask_calmly, make_pictures

SCENARIOS: list[Scenario] = [
    *process_faults.SCENARIOS,
    *connection_faults.SCENARIOS,
    *resource_faults.SCENARIOS,
    *engine_faults.SCENARIOS,
]


def get_scenario(name: str) -> Scenario:
    """A scenario by its name."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)


@dataclass
class _Running:
    setup: Setup
    cluster: Cluster
    expected: Mapping[str, Prediction]


class Theatre:
    """Runs scenarios one after the other. A context manager.

    A cluster is kept for the next scenario that needs one like it, unless the last one went badly.
    ``patience_seconds``: after that a job that has not ended counts as lost.
    """

    def __init__(
        self,
        pace: Pace,
        app_parent: Path | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._pace = pace
        self._patience_seconds = patience_seconds
        self._app_parent = app_parent
        self._pictures = make_pictures()
        self._running: _Running | None = None
        self._folders: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def run(self, scenario: Scenario, seed: int) -> Verdict:
        """Run one scenario once. Raises :class:`AssertionError` when the service stands still."""
        running = self._prepare(scenario.create_setup(self._pace))
        drill = Drill(
            running.cluster,
            self._pictures,
            running.expected,
            self._pace,
            f"{scenario.name}/{seed}",
            self._patience_seconds,
        )
        try:
            scenario.act(drill)
            verdict = drill.conclude()
        except BaseException:
            self._close()
            raise
        if verdict.is_good():
            return verdict
        logs = running.cluster.describe_logs()
        self._close()
        verdict.unmet.append(f"the logs end so:\n{logs}")
        return verdict

    def _prepare(self, setup: Setup) -> _Running:
        if self._running is not None and self._running.setup == setup:
            self._running.cluster.mend()
            return self._running
        self._close()
        # Not in pytest's own folder: the path of a Unix socket must be short.
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self._folders.append(folder)
        cluster = Cluster(
            folder,
            self._pace.settings() | dict(setup.settings),
            setup.worker_module,
            self._app_parent,
            has_small_disk=setup.has_small_disk,
        )
        try:
            cluster.__enter__()
            if setup.runs_up:
                cluster.start_up()
            else:
                cluster.start()
            expected = ask_calmly(cluster.url, self._pictures)
        except BaseException:
            cluster.stop()
            raise
        self._running = _Running(setup, cluster, expected)
        return self._running

    def _close(self) -> None:
        if self._running is not None:
            self._running.cluster.stop()
            self._running = None
