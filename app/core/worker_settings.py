"""Settings of the worker."""

import os

from pydantic import BaseModel, Field

DEFAULT_DECODE_SECONDS = 3


class WorkerSettings(BaseModel):
    """The worker and its processes."""

    processes: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="Processes that classify, each with its own model. Default: one a core.",
    )
    heartbeat_seconds: float = Field(
        2.0,
        ge=0.1,
        le=60,
        description="How often a worker says that it lives; after three missed beats it is gone.",
    )
    soft_limit_seconds: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="A batch that takes longer is interrupted; what it had not finished runs again "
        "image by image, and counts as a lost worker.",
    )
    time_limit_seconds: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="A batch that takes even longer hangs: its process is killed. Above "
        "WORKER_SOFT_LIMIT_SECONDS.",
    )
    decode_seconds: int = Field(
        DEFAULT_DECODE_SECONDS,
        ge=1,
        le=3600,
        description="CPU seconds that decoding an image may take; one that takes more fails with "
        "`image-too-costly`. Raise it with MAX_IMAGE_PIXELS, or on a slow machine; "
        "two thirds of WORKER_SOFT_LIMIT_SECONDS at most.",
    )
    grace_seconds: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="After TERM a worker finishes its batches for so long, then hands the rest "
        "back.",
    )

    @property
    def longest_decode_seconds(self) -> float:
        """How long one image may be decoded before the soft limit would strike.

        Two thirds of it: a batch may have taken a quarter before such an image begins.
        """
        return self.soft_limit_seconds / 1.5
