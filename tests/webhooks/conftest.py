"""What the tests of webhooks share."""

from collections.abc import Iterator

import pytest

from app.core.config import Settings, WebhookSettings
from app.main import create_app
from tests.api_server import run_api
from tests.webhooks.post_office import PostOffice, run_sender


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Receivers on loopback are allowed."""
    webhook = WebhookSettings(allowed_networks="127.0.0.1/32")
    return settings.model_copy(update={"webhook": webhook})


@pytest.fixture
def office(settings: Settings) -> Iterator[PostOffice]:
    """An API without a sender."""
    with run_api(create_app(settings)) as url:
        yield PostOffice(url, settings)


@pytest.fixture
def post_office(office: PostOffice) -> Iterator[PostOffice]:
    """An API and a sender."""
    with run_sender(office.settings):
        yield office
