"""Every setting of the service: one class, nested groups, one variable each.

A group's name and a field's name make the variable: ``queue`` + ``lease_seconds`` is
``QUEUE_LEASE_SECONDS``. The environment wins over a ``.env`` file in the working directory,
which wins over the default.
"""

import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.core.errors import ConfigurationError
from app.core.http_settings import (
    AllowedSettings,
    CorsSettings,
    HttpSettings,
    ListenSettings,
    TrustedSettings,
)
from app.core.redaction import redact_wrong
from app.core.setting_groups import (
    DEFAULT_MODEL_PATH,
    AdminSettings,
    DeadSettings,
    EngineName,
    IdempotencySettings,
    LimitSettings,
    LogSettings,
    ModelSettings,
    PayloadSettings,
    QueueSettings,
    RedisSettings,
    ResultSettings,
    RetrySettings,
    WebhookSettings,
)
from app.core.worker_settings import DEFAULT_DECODE_SECONDS, WorkerSettings

__all__ = [
    "AdminSettings",
    "AllowedSettings",
    "CorsSettings",
    "DEFAULT_MODEL_PATH",
    "DeadSettings",
    "EngineName",
    "HttpSettings",
    "IdempotencySettings",
    "LimitSettings",
    "ListenSettings",
    "LogSettings",
    "ModelSettings",
    "PayloadSettings",
    "QueueSettings",
    "RedisSettings",
    "ResultSettings",
    "RetrySettings",
    "Settings",
    "TrustedSettings",
    "WebhookSettings",
    "WorkerSettings",
    "get_settings",
    "load_settings",
    "variable_name",
]


class Settings(BaseSettings):
    """All settings. Raises :class:`pydantic.ValidationError` for a bad value."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    redis: RedisSettings = Field(default_factory=RedisSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    engine: EngineName = Field(
        EngineName.AUTO,
        description="`auto` uses the fastest installed engine whose answers agree with PyTorch's; "
        "a name asks for that one.",
    )
    engine_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Threads of one worker process inside the engine."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, validation_alias="max")
    result: ResultSettings = Field(default_factory=ResultSettings)
    idempotency: IdempotencySettings = Field(default_factory=IdempotencySettings)
    log: LogSettings = Field(default_factory=LogSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    dead: DeadSettings = Field(default_factory=DeadSettings)
    admin: AdminSettings = Field(default_factory=AdminSettings)
    payload: PayloadSettings = Field(default_factory=PayloadSettings)
    listen: ListenSettings = Field(default_factory=ListenSettings)
    allowed: AllowedSettings = Field(default_factory=AllowedSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    cors: CorsSettings = Field(default_factory=CorsSettings)
    trusted: TrustedSettings = Field(default_factory=TrustedSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    data_dir: Path = Field(
        Path("./data"),
        description="Folder for uploads, converted models and the Redis of `classifier up`.",
    )
    durability: Literal["everysec", "always"] = Field(
        "everysec",
        description="When uploads in files, and what the Redis of `classifier up` writes, are on "
        "the disk: within a second, or `always` before a job is accepted "
        "(`docs/reliability.md`).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.worker.soft_limit_seconds >= self.worker.time_limit_seconds:
            raise ValueError("WORKER_SOFT_LIMIT_SECONDS must be below WORKER_TIME_LIMIT_SECONDS")
        # A soft limit that leaves no time for the default is a choice of its own.
        longest_seconds = max(self.worker.longest_decode_seconds, DEFAULT_DECODE_SECONDS)
        if self.worker.decode_seconds > longest_seconds:
            raise ValueError(
                "WORKER_DECODE_SECONDS must be at most two thirds of WORKER_SOFT_LIMIT_SECONDS"
            )
        if self.queue.max_bytes < self.limits.file_size:
            raise ValueError("QUEUE_MAX_BYTES must be at least MAX_FILE_SIZE")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """A variable called like a whole group (``LOG``, ``QUEUE``) is somebody else's."""
        groups = {
            str(field.validation_alias or name)
            for name, field in cls.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            source.env_vars = {
                name: value for name, value in source.env_vars.items() if name not in groups
            }
        return init_settings, env_settings, dotenv_settings

    @property
    def cache_dir(self) -> Path:
        """Where converted models are kept, absolute."""
        return (self.model.cache_dir or self.data_dir / "cache").absolute()

    def uses_built_in_model(self) -> bool:
        """Whether nobody asked for another model: the default path, and no file there."""
        return self.model.path == DEFAULT_MODEL_PATH and not self.model.path.exists()


def variable_name(*path: str) -> str:
    """The variable of a field, from its path: ("limits", "file_size") → MAX_FILE_SIZE."""
    field = Settings.model_fields[path[0]]
    first = field.validation_alias if isinstance(field.validation_alias, str) else path[0]
    return "_".join((first, *path[1:])).upper()


def load_settings() -> Settings:
    """Read the settings. Raises :class:`ConfigurationError`, which names every bad variable."""
    try:
        return Settings()
    except ValidationError as error:
        complaints = []
        for item in error.errors():
            path = tuple(str(part) for part in item["loc"])
            name = "_".join(path).upper()
            message = item["msg"].removeprefix("Value error, ")
            value = item["input"]
            if _is_secret(path):
                value = "***"
            elif isinstance(value, str):
                value = redact_wrong(value)
            # Values that don't fit together are named by their message alone.
            about = f"{name}={value!r}: " if path else ""
            complaints.append(about + message)
        raise ConfigurationError("; ".join(complaints)) from None


def _is_secret(path: tuple[str, ...]) -> bool:
    """Whether no part of the field's value may be shown."""
    field: FieldInfo | None = Settings.model_fields.get(path[0]) if path else None
    group = field.annotation if field else None
    if len(path) > 1 and isinstance(group, type) and issubclass(group, BaseModel):
        field = group.model_fields.get(path[1])
    return field is not None and SecretStr in (field.annotation, *get_args(field.annotation))


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once. A bad value ends the process: one line, exit code 2."""
    try:
        return load_settings()
    except ConfigurationError as error:
        print(f"classifier: bad configuration: {error}", file=sys.stderr)
        raise SystemExit(2) from None
