"""The settings of how the service is reached over HTTP, in groups like those beside."""

import re
from ipaddress import ip_address

from pydantic import BaseModel, Field, field_validator

from app.core.networks import Network, read_networks
from app.core.setting_lists import split_list

# Scheme, host and port, as browsers send it: no path, not even a slash.
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")

# A host's name, or all names below one: no scheme, no port. Names of containers have underscores.
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")

# Whoever connects through a Unix socket, which has no address.
_UNIX = "unix"


def _is_address(text: str) -> bool:
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class ListenSettings(BaseModel):
    """Where `classifier api` and `classifier up` listen.

    Not "api": Kubernetes sets API_PORT to a URL wherever a service is called "api".
    """

    host: str = Field(
        "127.0.0.1", description="Address to listen on; loopback unless told otherwise."
    )
    port: int = Field(8000, ge=1, le=65_535, description="Port to listen on.")


class AllowedSettings(BaseModel):
    """By which names the service is reached."""

    hosts: str = Field(
        "",
        description="Host names that requests may name, comma-separated: `images.example.org`, "
        "`*.example.org` for all names below, `*` for every name. Addresses, `localhost`, "
        "`LISTEN_HOST` and, while the service listens beyond loopback, the machine's own names "
        "always may (`docs/proxies.md`).",
    )

    @field_validator("hosts")
    @classmethod
    def _are_names(cls, text: str) -> str:
        for name in split_list(text):
            if name != "*" and not _is_address(name) and not _HOST.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no host name: write images.example.org or *.example.org, without "
                    "scheme, port and path"
                )
        return text

    def list_hosts(self) -> list[str]:
        """One by one, in lower case, without the dot that may end a name."""
        return [name.lower().removesuffix(".") for name in split_list(self.hosts)]


class TrustedSettings(BaseModel):
    """Which senders are believed about requests that they pass on."""

    proxies: str = Field(
        "",
        description="Addresses or networks of reverse proxies, comma-separated: "
        "`10.0.0.5,192.168.1.0/24`; `unix` for those that connect through a Unix socket. They "
        "alone may say with `Forwarded` or `X-Forwarded-…` whom they speak for. None by default.",
    )

    @field_validator("proxies")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        cls._read(text)
        return text

    @staticmethod
    def _read(text: str) -> list[Network]:
        return read_networks(",".join(part for part in split_list(text) if part != _UNIX))

    def list_proxies(self) -> list[Network]:
        """The networks, one by one."""
        return self._read(self.proxies)

    def trusts_unix_sockets(self) -> bool:
        """Whether those are believed who connect through a Unix socket."""
        return _UNIX in split_list(self.proxies)


class HttpSettings(BaseModel):
    """Bounds of connections: how much they may hold, how long they may take."""

    head_bytes: int = Field(
        32_768,
        ge=1024,
        le=1 << 20,
        description="Most bytes of a request's line and headers together; trailers alike (431).",
    )
    head_fields: int = Field(
        100, ge=10, le=10_000, description="Most headers of a request; trailers alike (431)."
    )
    head_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="A new connection says something within this time, and a request's head is "
        "complete within this time of its first byte (408).",
    )
    keep_alive_seconds: float = Field(
        75.0,
        gt=0,
        le=86_400,
        description="How long a connection may rest between requests. Longer than the same "
        "setting of a proxy in front (often 60), which else sends into connections that close.",
    )
    body_grace_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long a body may bring nothing, to begin with. Every "
        "HTTP_BODY_BYTES_PER_SECOND earn it a second more, up to twice this (408).",
    )
    body_bytes_per_second: int = Field(
        1024, ge=1, le=1 << 30, description="Bytes a second that a body must bring in the long run."
    )
    upload_seconds: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="The longest that the body of `POST /classify` is waited for (408). Here as "
        "with all bodies, time in which the service itself does not read is not counted.",
    )
    batch_seconds: float = Field(
        1800.0,
        gt=0,
        le=3000,
        description="The longest that the body of `POST /batches` is waited for (408). Below an "
        "hour, after which uploads without a job are erased.",
    )
    json_seconds: float = Field(
        15.0, gt=0, le=3600, description="The longest that a JSON body is waited for (408)."
    )
    discard_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="A client that is answered before its body has come may go on sending for so "
        "long, twice MAX_FILE_SIZE at most, before the connection is closed.",
    )
    stall_seconds: float = Field(
        60.0,
        ge=1,
        le=3600,
        description="A connection whose other end takes nothing of an answer, or has gone without "
        "a word, is closed after about so long (Linux).",
    )
    connections_per_client: int = Field(
        1024,
        ge=0,
        le=10_000_000,
        description="Most connections from one address (IPv6: one /64 network) at a time; 0 for "
        "any number. More are refused with 503. Loopback, Unix sockets and TRUSTED_PROXIES may "
        "have any number.",
    )
    connections: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Most connections in all. For one more the one that has rested longest is "
        "closed; where all are busy it is refused with 503. Default: 90 % of the process's limit "
        "of open files, which is raised as far as the system lets it.",
    )


class CorsSettings(BaseModel):
    """Web pages from elsewhere."""

    origins: str = Field(
        "",
        description="Origins whose web pages may use the API from a browser, comma-separated, such "
        "as `https://app.example.org`; `*` for all. Pages of the service itself always may; a "
        "reverse proxy must pass the `Host` header on for that, or its own origin be named here.",
    )

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in split_list(text):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError("one of them is no origin: write https://host or http://host:port")
        return text

    def list_origins(self) -> list[str]:
        """One by one."""
        return split_list(self.origins)
