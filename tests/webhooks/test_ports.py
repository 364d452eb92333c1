"""Which ports of a public address deliveries may go to."""

import pytest

from app.core.config import Settings, WebhookSettings
from app.core.errors import ServiceError
from app.main import create_app
from app.webhooks.addresses import AddressGuard
from tests.api_client import assert_problem
from tests.api_server import run_api
from tests.webhooks.post_office import PostOffice, run_sender
from tests.webhooks.receiver import run_receiver

OPEN = ["", ":80", ":443", ":1024", ":3000", ":8000", ":8080", ":8443", ":65535"]
CLOSED = [0, 1, 21, 22, 25, 53, 79, 81, 110, 111, 143, 389, 444, 445, 465, 636, 873, 993, 1023]
DENIED = [1433, 2049, 2375, 3306, 3389, 5060, 5432, 5900, 6000, 6379, 6443, 6667, 8500, 9200]
DENIED += [11211, 26379, 27017]


@pytest.mark.parametrize("host", ["93.184.216.34", "receiver.example", "[2606:4700::1111]"])
def test_ports_of_the_web_and_of_nobody_are_open(host: str) -> None:
    for scheme in ("http", "https"):
        for port in OPEN:
            assert AddressGuard(WebhookSettings()).read_url(f"{scheme}://{host}{port}/")


@pytest.mark.parametrize("host", ["93.184.216.34", "receiver.example", "[2606:4700::1111]"])
@pytest.mark.parametrize("port", [*CLOSED, *DENIED])
def test_ports_of_other_services_are_refused(host: str, port: int) -> None:
    with pytest.raises(ServiceError) as caught:
        AddressGuard(WebhookSettings()).read_url(f"http://{host}:{port}/")
    assert caught.value.code == "webhook-port-refused"


def test_ports_are_read_in_every_spelling() -> None:
    for port in ("006379", "%36379"):
        with pytest.raises(ServiceError):
            AddressGuard(WebhookSettings()).read_url(f"http://receiver.example:{port}/")


def test_the_operator_says_which() -> None:
    guard = AddressGuard(WebhookSettings(denied_ports="8080, 9000"))
    assert guard.read_url("http://receiver.example:6379/")
    for port in (22, 8080, 9000):
        with pytest.raises(ServiceError):
            guard.read_url(f"http://receiver.example:{port}/")
    assert AddressGuard(WebhookSettings(denied_ports="")).read_url("http://receiver.example:6379/")


@pytest.mark.parametrize("text", ["http", "0", "65536", "80-90", "6379 5432", "-1"])
def test_what_is_no_port_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="must be numbers of ports"):
        WebhookSettings(denied_ports=text)


def test_networks_that_are_named_have_all_their_ports() -> None:
    guard = AddressGuard(WebhookSettings(allowed_networks="10.1.0.0/16"))
    for port in (22, 6379):
        assert guard.read_url(f"http://10.1.2.3:{port}/")
        with pytest.raises(ServiceError):
            guard.read_url(f"http://93.184.216.34:{port}/")


def test_registration_says_which_ports_are_open(settings: Settings) -> None:
    public = settings.model_copy(update={"webhook": WebhookSettings()})
    with run_api(create_app(public)) as url:
        answer = PostOffice(url, public).client.post(
            "/webhooks", json={"url": "http://93.184.216.34:6379/"}
        )
    problem = assert_problem(answer, 422, "webhook-port-refused")
    assert "WEBHOOK_DENIED_PORTS" in problem["detail"]


class Name:
    """A DNS that knows one answer."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def __call__(self, host: str, port: int) -> tuple[str, ...]:
        return self.addresses


def test_a_setting_that_has_changed_counts_for_what_is_registered(office: PostOffice) -> None:
    """A name was accepted when its port was open, or when it might have led to a network."""
    office.register("http://receiver.example:6379/")
    with run_sender(office.settings, Name("93.184.216.34")):
        office.complete()
        delivery_id = office.only_delivery()
        (attempt,) = office.wait_for_attempts(delivery_id, 1)["attempts"]
    assert (attempt["error"], attempt["status_code"]) == ("port-refused", None)


def test_a_named_network_is_reached_at_a_port_that_is_denied(office: PostOffice) -> None:
    with run_receiver() as receiver:
        webhook = WebhookSettings(allowed_networks="127.0.0.1/32", denied_ports=str(receiver.port))
        settings = office.settings.model_copy(update={"webhook": webhook})
        with run_sender(settings, Name("93.184.216.34", "127.0.0.1")):
            office.register(f"http://receiver.example:{receiver.port}/")
            office.complete()
            assert office.wait_for_end(receiver.next().id)["status"] == "delivered"
