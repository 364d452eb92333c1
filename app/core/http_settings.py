"""The settings of connections: bounds of what is read before anybody knows what is asked."""

from pydantic import BaseModel, Field


class HttpSettings(BaseModel):
    """What connections may hold and how long they may take."""

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
