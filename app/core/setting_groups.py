"""The settings in groups: what each is, its default, what is allowed.

:mod:`app.core.config` puts them together and is where everybody else finds them.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr, field_validator
from redis.connection import ConnectionPool, parse_url

from app.core.networks import read_networks
from app.core.sentinel_url import SENTINEL_SCHEME, find_sentinel_url
from app.core.setting_lists import split_list

DEFAULT_MODEL_PATH = Path("./models/classifier.pth")

# 128 bits even of a token in hexadecimal; nobody guesses that at any rate of guesses.
SHORTEST_TOKEN = 32


# What browsers never connect to ("bad ports" of the Fetch standard), and what a request with a
# body of the sender's choice may change: databases, caches, brokers, remote control.
DENIED_PORTS = (
    "1433,1521,1719,1720,1723,1883,2049,2181,2375,2376,2379,2380,3128,3306,3389,3659,4045,"
    "4190,4369,5060,5061,5432,5672,5900,5984,5985,5986,6000,6379,6443,6566,6665,6666,6667,"
    "6668,6669,6679,6697,7000,7001,8086,8500,8883,9042,9092,9200,9300,10080,10250,10255,"
    "11211,15672,26257,26379,27017,27018,61613,61616"
)


# As in redis.conf: 1mb are 1024 × 1024 bytes, 1m a million.
_MEMORY = re.compile(r"(\d+)(kb?|mb?|gb?)", re.IGNORECASE)
_MEMORY_UNITS = {
    "k": 10**3,
    "kb": 1 << 10,
    "m": 10**6,
    "mb": 1 << 20,
    "g": 10**9,
    "gb": 1 << 30,
}


def _read_redis_url(url: str) -> dict[str, Any]:
    """Raises :class:`ValueError` in words of our own: the parser's may hold half a password."""
    location = url.partition("?")[0].partition("://")[2]
    try:
        # Half a password may pass for a port, and what follows it for a database's number.
        if "#" in url or ("@" in location.partition("/")[2] and not url.startswith("unix://")):
            raise ValueError
        # Options that there are not are refused by a connection only.
        ConnectionPool.from_url(url).make_connection()
        return dict(parse_url(url))  # type: ignore[no-untyped-call]
    except Exception:
        raise ValueError(
            "is no URL of a Redis: correct its host, port or options, and write / ? # in a "
            "password as %2F %3F %23"
        ) from None


class RedisSettings(BaseModel):
    """Where Redis is and how long to wait for it."""

    url: str = Field(
        "redis://localhost:6379",
        description="Redis for the job ledger and the Celery broker: `redis://`, `rediss://` "
        "(TLS), `unix://` with a socket's path, or `sentinel://` (`docs/redis.md`).",
    )
    timeout_seconds: float = Field(
        2.0, gt=0, le=60, description="Longest wait for a connection or an answer."
    )
    max_memory: int | None = Field(
        None,
        ge=1 << 25,
        le=1 << 50,
        description="Memory that Redis's data may take, in bytes or as Redis writes it: `512mb`. A "
        "tenth of it is for the ends of accepted jobs alone; before that new ones are refused with "
        "429. The Redis of `classifier up` gets it as its `maxmemory`, by default a quarter of the "
        "memory of the machine or its cgroup; of another Redis the lower of this and its own "
        "`maxmemory` counts.",
    )

    @field_validator("max_memory", mode="before")
    @classmethod
    def _as_redis_reads_it(cls, value: object) -> object:
        match = _MEMORY.fullmatch(value) if isinstance(value, str) else None
        return int(match[1]) * _MEMORY_UNITS[match[2].lower()] if match else value

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://", SENTINEL_SCHEME)):
            raise ValueError("must start with redis://, rediss://, unix:// or sentinel://")
        if find_sentinel_url(url) is None:
            parts = _read_redis_url(url)
            if url.startswith("unix://") and "path" not in parts:
                raise ValueError("must name a socket: unix:///run/redis.sock")
        return url


class ModelSettings(BaseModel):
    """Which model answers."""

    path: Path = Field(
        DEFAULT_MODEL_PATH,
        description="Model file: `.pth`/`.pt` state dict or TorchScript, `.pt2` or `.onnx`, with "
        "its manifest beside it (`docs/models.md`). While the default path holds no file, the "
        "built-in EfficientNet-Lite0 answers.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder for converted models and the choice of engine; may be shared. Default: "
        "`cache` in the data folder.",
    )
    calibration_dir: Path | None = Field(
        None,
        description="Folder with 32 or more JPEG and PNG files like those that will be classified: "
        "offers the `-int8` engines, and compares every engine's answers on a quarter of them.",
    )


class EngineName(StrEnum):
    """The engines by the names that settings, logs and `/health` use."""

    AUTO = "auto"
    TORCH = "torch"
    TORCH_COMPILED = "torch-compiled"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    OPENVINO_BF16 = "openvino-bf16"
    ONNXRUNTIME_INT8 = "onnxruntime-int8"
    OPENVINO_INT8 = "openvino-int8"
    TORCH_CUDA = "torch-cuda"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    TENSORRT = "tensorrt"

    @property
    def is_quantised(self) -> bool:
        """Whether it computes in integers, whose ranges are measured on a user's images."""
        return self.value.endswith("-int8")

    @property
    def uses_gpu(self) -> bool:
        """Whether it computes on an NVIDIA GPU."""
        return self is EngineName.TENSORRT or self.value.endswith("-cuda")


class LimitSettings(BaseModel):
    """What an upload may measure."""

    file_size: int = Field(
        10_485_760, ge=1, le=1 << 30, description="Largest image file accepted, in bytes."
    )
    image_pixels: int = Field(
        50_000_000,
        ge=1,
        le=500_000_000,
        description="Largest width × height accepted: decoding takes four bytes a pixel.",
    )
    image_side: int = Field(
        16_384, ge=1, le=65_535, description="Largest width or height accepted, in pixels."
    )


class ResultSettings(BaseModel):
    """How long answers are kept."""

    ttl: int = Field(
        3600,
        ge=1,
        le=31_536_000,
        description="Seconds that an ended job and its result are kept.",
    )
    max_records: int = Field(
        1_000_000,
        ge=1,
        le=1_000_000_000,
        description="Jobs of one client that are kept at once, waiting and ended, 0.4 to 1 KB of "
        "Redis's memory each; more are refused with 429 until the oldest expire.",
    )
    wait_limit_seconds: int = Field(
        60,
        ge=0,
        le=3600,
        description="The longest that a request with `Prefer: wait=N` waits for a job to end.",
    )
    cache_entries: int = Field(
        10_000,
        ge=0,
        le=10_000_000,
        description="Answers that are found again when the same image comes again; 0 turns that "
        "off, and with it that identical images under way are classified once.",
    )
    cache_ttl: int = Field(
        3600,
        ge=1,
        le=31_536_000,
        description="Seconds for which an answer is found again, at most RESULT_TTL.",
    )


class IdempotencySettings(BaseModel):
    """Idempotency keys: clients that do not know whether an upload arrived send it again."""

    max_keys: int = Field(
        100_000,
        ge=0,
        le=1_000_000_000,
        description="Keys of one client that are kept for 24 hours, 0.2 KB of Redis's memory each. "
        "Further ones are kept for RESULT_TTL.",
    )


class LogSettings(BaseModel):
    """What is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged."
    )

    @field_validator("level", mode="before")
    @classmethod
    def _upper(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level


class QueueSettings(BaseModel):
    """The job ledger: batches, leases, the sweeper."""

    batch_size: int = Field(
        8,
        ge=1,
        le=256,
        description="Most jobs that a worker process claims at once. The same everywhere: the "
        "API counts with it when it decides whether to wake a worker.",
    )
    lease_seconds: float = Field(
        15.0,
        ge=1,
        le=3600,
        description="How long a claim holds without being renewed; a job whose worker died returns "
        "to the queue after this.",
    )
    sweep_seconds: float = Field(
        2.0, ge=0.1, le=300, description="How often expired leases and lost doorbells are sought."
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="A job that has lost its worker so often (killed, hung, out of reach) is given "
        "up and becomes a dead letter.",
    )
    max_jobs: int = Field(
        10_000,
        ge=1,
        le=100_000_000,
        description="Jobs that may wait; more are refused with 429 until there is room.",
    )
    max_bytes: int = Field(
        2 << 30,
        ge=1,
        le=1 << 50,
        description="Bytes that the uploads of all unfinished jobs may take; more are refused with "
        "429. At least MAX_FILE_SIZE.",
    )
    history_length: int = Field(
        100_000, ge=0, le=100_000_000, description="Transitions kept in the history stream, about."
    )


class RetrySettings(BaseModel):
    """Trying again after what may pass: an unreadable payload store, an engine out of memory."""

    limit: int = Field(
        5, ge=0, le=100, description="How often a job is tried again before it is a dead letter."
    )
    backoff_seconds: float = Field(
        1.0,
        gt=0,
        le=3600,
        description="Wait before the first retry; each further one waits twice as long, up to five "
        "minutes, give or take a half.",
    )


class DeadSettings(BaseModel):
    """Dead letters: jobs that were given up, kept with their uploads."""

    letter_ttl: int = Field(
        604_800,
        ge=1,
        le=31_536_000,
        description="Seconds that a dead letter is kept (a week) before it is erased.",
    )
    max_letters: int = Field(
        1_000,
        ge=1,
        le=100_000,
        description="Dead letters that are kept; beyond that the oldest become ordinary failed "
        "jobs, and their uploads are erased.",
    )
    max_bytes: int = Field(
        1 << 30,
        ge=1,
        le=1 << 50,
        description="Bytes that the uploads of dead letters may take; beyond that the oldest go as "
        "well.",
    )


class AdminSettings(BaseModel):
    """Who may look at dead letters and retry them."""

    token: SecretStr | None = Field(
        None,
        description="Secret for `/admin`, sent as `Authorization: Bearer …`. Without one `/admin` "
        "is closed; `classifier up` makes its own, in the data folder. At least 32 characters: "
        "`openssl rand -hex 32` makes one.",
    )

    @field_validator("token")
    @classmethod
    def _is_long(cls, token: SecretStr | None) -> SecretStr | None:
        # A header can't begin or end with the line break that a secret from a file often has.
        if token and 0 < len(token.get_secret_value().strip()) < SHORTEST_TOKEN:
            raise ValueError(
                f"must have at least {SHORTEST_TOKEN} characters: `openssl rand -hex 32` makes one"
            )
        return token


class PayloadSettings(BaseModel):
    """Where uploads wait until they are classified."""

    store: Literal["files", "redis"] = Field(
        "files",
        description="`files`: in the data folder, for one machine. `redis`: in Redis, for several.",
    )
    reserve_bytes: int = Field(
        100_000_000,
        ge=0,
        le=1 << 50,
        description="With files: free space on their disk below which uploads are refused with "
        "503, so that accepted jobs can be finished.",
    )


class WebhookSettings(BaseModel):
    """Webhooks: telling other programs that a job has ended."""

    allowed_networks: str | None = Field(
        None,
        description="Networks besides the public ones that deliveries may go to, comma-separated: "
        "`10.1.0.0/16,127.0.0.1/32`. Whoever may register webhooks can make the service send "
        "requests there.",
    )
    denied_ports: str = Field(
        DENIED_PORTS,
        description="Ports from 1024 on that deliveries never go to, comma-separated; below only "
        "80 and 443 are open. What listens there takes more than HTTP for a command. Receivers in "
        "WEBHOOK_ALLOWED_NETWORKS may have any port.",
    )
    service_url: str | None = Field(
        None,
        description="Where receivers reach this service: with it an event says where its result "
        "is.",
    )
    timeout_seconds: float = Field(
        15.0, gt=0, le=60, description="The longest that one delivery attempt may take."
    )
    max_endpoints: int = Field(
        20, ge=1, le=10_000, description="Webhooks that may be registered; more are refused."
    )
    max_pending: int = Field(
        10_000,
        ge=1,
        le=100_000_000,
        description="Deliveries that may wait for one webhook, 1 to 2.5 KB of Redis's memory each; "
        "what comes on top is dropped and counted.",
    )
    log_length: int = Field(
        10_000, ge=1, le=10_000_000, description="Deliveries of one webhook that the log shows."
    )
    log_ttl: int = Field(
        604_800,
        ge=1,
        le=31_536_000,
        description="Seconds that an ended delivery is kept (a week).",
    )

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, text: str | None) -> str | None:
        read_networks(text or "")
        return text

    @field_validator("denied_ports")
    @classmethod
    def _are_ports(cls, text: str) -> str:
        if not all(port.isdecimal() and 0 < int(port) < 65_536 for port in split_list(text)):
            raise ValueError("must be numbers of ports: 5432,6379")
        return text

    def list_denied_ports(self) -> list[int]:
        """One by one."""
        return [int(port) for port in split_list(self.denied_ports)]

    @field_validator("service_url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if url and re.search(r"[@?#\s]", url):
            raise ValueError(
                "must hold no user, password or query: every receiver is told this address"
            )
        return url.rstrip("/") if url else url
