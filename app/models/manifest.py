"""A model's manifest: what a model file doesn't say itself. ``classifier.json`` describes
``classifier.pth`` beside it.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.core.errors import ConfigurationError

Channels = tuple[float, float, float]


class ModelOutput(StrEnum):
    """What the model's last layer gives for each class."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


class ModelManifest(BaseModel):
    """How images become the model's input and its outputs become answers.

    An image's short side is resized to ``resize`` pixels, the middle square of ``crop`` pixels is
    cut out and, where that differs, scaled to ``input_size``; then each channel (red, green, blue)
    becomes ``(pixel - mean) / std``, pixels counting from 0 to 255.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    version: str = Field(min_length=1, max_length=100)
    architecture: str | None = None
    labels: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    input_size: int = Field(ge=8, le=4096)
    resize: int = Field(ge=8, le=8192)
    crop: int = Field(ge=8, le=8192)
    mean: Channels
    std: Channels
    output: ModelOutput = ModelOutput.LOGITS
    digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Fill in the customary crop (all of the input) and resize (256 for an input of 224)."""
        if isinstance(values, dict) and isinstance(values.get("input_size"), int):
            values = {"crop": values["input_size"], **values}
            if isinstance(values["crop"], int):
                values = {"resize": values["crop"] * 8 // 7, **values}
        return values

    @field_validator("digest", mode="before")
    @classmethod
    def _bare(cls, digest: object) -> object:
        return digest.lower().removeprefix("sha256:") if isinstance(digest, str) else digest

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError("every value must be greater than 0")
        return std

    @model_validator(mode="after")
    def _consistent(self) -> "ModelManifest":
        if self.crop > self.resize:
            raise ValueError(f"crop ({self.crop}) must not be greater than resize ({self.resize})")
        if all(0 < value < 1 for value in (*self.mean, *self.std)):
            raise ValueError("mean and std count pixels from 0 to 255: multiply yours by 255")
        return self


def manifest_path(model: Path) -> Path:
    """Where the manifest of a model file lies: the same name, ending in ``.json``."""
    return model.with_suffix(".json")


def load_manifest(path: Path) -> ModelManifest:
    """Read a manifest; a text file of labels, one a line, is sought in its folder.

    Raises :class:`ConfigurationError` when anything is missing or wrong.
    """
    try:
        values = json.loads(_read(path, "manifest"))
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}; correct it there"
        ) from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must hold a JSON object: see docs/models.md")
    if isinstance(values.get("labels"), str):
        text = _read(_find_labels(path, values["labels"]), "list of labels")
        values["labels"] = [line.strip() for line in text.splitlines() if line.strip()]
    try:
        return ModelManifest.model_validate(values)
    except ValidationError as error:
        complaints = "; ".join(
            ".".join([*map(str, item["loc"])] or ["manifest"])
            + ": "
            + item["msg"].removeprefix("Value error, ")
            for item in error.errors()[:5]
        )
        raise ConfigurationError(f"{path} is wrong, correct it there: {complaints}") from None


def _find_labels(manifest: Path, name: str) -> Path:
    """A file in the manifest's folder: whoever may ask for a result sees what it holds."""
    path = manifest.parent / name
    try:
        is_inside = path.resolve().is_relative_to(manifest.parent.resolve())
        is_special = path.exists() and not path.is_file()
    # Names with a null byte or of endless length, links in a circle.
    except (OSError, RuntimeError, ValueError):
        is_inside = is_special = False
    if not is_inside or is_special:
        raise ConfigurationError(
            f"{manifest} is wrong, correct it there: labels must name a text file in the model's "
            f"folder, {name!r} is none"
        )
    return path


def _read(path: Path, role: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"the {role} {path} does not exist: write it (docs/models.md says how)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the {role} {path} can't be read: {error}") from None
