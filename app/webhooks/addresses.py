"""Which addresses and ports deliveries may go to, and the networks that the operator names.

Whoever can register a webhook makes this service send requests. Without this guard those could
reach what only the service can reach: other services of its network, the cloud's metadata.
"""

import ipaddress
from urllib.parse import urlsplit

from pydantic import AnyHttpUrl, TypeAdapter, ValidationError

from app.core.config import WebhookSettings
from app.core.errors import InvalidRequestError
from app.core.networks import Address, is_in_any, read_networks, unwrap
from app.core.webhook_errors import WebhookAddressError, WebhookPortError

_LONGEST_URL = 2000

_WEB_PORTS = (80, 443)
# Below are the ports of a system's own services: mail, remote shells, name and file servers.
_FIRST_FREE_PORT = 1024

# Beside what ipaddress knows, which differs between interpreters.
_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure: the machine's own platform, by an address like any other
        "192.0.0.0/24",  # of protocols, such as PCP's nearest router
        "192.88.99.0/24",  # the nearest 6to4 relay
        "2001::/23",  # of protocols, as above
        "3fff::/20",  # documentation
    )
]
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
# The last four bytes of these are an IPv4 address, which the network translates to (RFC 6052).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_HTTP_URL = TypeAdapter(AnyHttpUrl)


class AddressGuard:
    """Judges URLs, as far as one can without asking anybody, and addresses."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._denied_ports = frozenset(settings.list_denied_ports())
        self._allowed = read_networks(settings.allowed_networks or "")

    def read_url(self, text: str) -> str:
        """The URL as the WHATWG standard writes it, where ``http://0x7f.1`` is ``127.0.0.1``.

        Raises :class:`InvalidRequestError`, :class:`WebhookAddressError` and
        :class:`WebhookPortError`. Names are not resolved: what they lead to may change, so that is
        checked at each connection.
        """
        if len(text) > _LONGEST_URL:
            raise InvalidRequestError(f"url must have {_LONGEST_URL:,} characters at most.")
        try:
            url = _HTTP_URL.validate_python(text)
        except ValidationError:
            raise InvalidRequestError("url must be an http:// or https:// URL.") from None
        if url.username is not None or url.password is not None:
            raise InvalidRequestError(
                "url must hold no user name or password: deliveries are signed instead."
            )
        host = (url.host or "").strip("[]").rstrip(".")
        if host == "localhost" or host.endswith(".localhost"):
            host = "127.0.0.1"
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            # What a name leads to may be in a network whose every port is allowed.
            is_open = bool(self._allowed) or self._is_open(url.port)
        else:
            if not self.allows(address):
                raise WebhookAddressError()
            is_open = self.allows(address, url.port)
        if not is_open:
            raise WebhookPortError()
        return urlsplit(str(url))._replace(fragment="").geturl()

    def allows(self, address: Address, port: int | None = None) -> bool:
        """Whether deliveries may go there, and to that port if one is given."""
        meant = _find_meant(address)
        if is_in_any(meant, self._allowed):
            return True
        return _is_public(meant) and self._is_open(port)

    def _is_open(self, port: int | None) -> bool:
        if port is None:
            return True
        return port in _WEB_PORTS if port < _FIRST_FREE_PORT else port not in self._denied_ports


def _find_meant(address: Address) -> Address:
    """Return the IPv4 address that one of IPv6 stands for on its way, else the address."""
    address = unwrap(address)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def _is_public(address: Address) -> bool:
    # is_global leaves out private, loopback, link-local, unspecified, shared (CGNAT) addresses,
    # documentation, Teredo.
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if is_in_any(address, _NOT_PUBLIC):
        return False
    return address.version == 4 or address in _PUBLIC_IPV6
