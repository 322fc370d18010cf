"""The configuration of a training: one YAML file, validated once; every error names its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from difffusr.kernels.networks import BASE, PUBLISHED, SMALL, Stage1Config
from difffusr.kernels.networks.fusion import BASE as FUSION_BASE
from difffusr.kernels.networks.fusion import FOLDED, PUBLISHED_V2, FusionConfig
from difffusr.kernels.networks.fusion import SMALL as FUSION_SMALL
from difffusr.pipeline.config import (
    Boolean,
    Integer,
    Number,
    PathOrUrl,
    Section,
    Text,
    merge_overrides,
    read_mapping,
    reason_error,
    rule_error,
    validated,
)

AnySettings = TypeVar("AnySettings", bound="Training")

Bands = Annotated[tuple[Integer, Integer, Integer], Field(strict=False)]

Globs = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


class _Source(Section):
    """Where some data are, and which of them training must never see."""

    path: Text | None = Field(default=None, description="a folder or a glob, below root if it is relative")
    held_out: Globs = Field(default=(), description="a list of globs of names, such as ['zurich*']")
    held_out_every: Integer | None = Field(default=None, ge=2, description="an integer ≥ 2, or null")


class ImageSource(_Source):
    """A folder of images finer than Sentinel-2, and how they become reflectance.

    `held_out` and `held_out_every` name places, whole ones: an image, an ROI of SEN2NAIP, a site of WorldStrat. Of an
    image that shows several, one source may read the upper `rows` and another, held out, the lower ones.
    """

    path: Text = Field(description="a folder or a glob, below root if it is relative")
    layout: Literal["images", "sen2naip", "worldstrat"] = Field(
        default="images", description="'images', 'sen2naip' or 'worldstrat'"
    )
    gsd_m: Number | None = Field(default=None, gt=0, le=10, description="metres, above 0 and at most 10")
    index: Text | None = Field(default=None, description="the path of a CSV file with columns file and gsd_m, or null")
    rgb: Bands = Field(default=(1, 2, 3), description="the bands that are red, green and blue, counted from 1")
    full_scale: Number = Field(default=255.0, gt=0, description="the value that means a reflectance of 1")
    display: Boolean = Field(default=True, description="true for 8-bit pictures made for display, else false")
    nodata_at_ends: Boolean = Field(default=False, description="true if pure black and white are nodata")
    rows: Annotated[tuple[Number, Number], Field(strict=False)] = Field(
        default=(0.0, 1.0), description="[first, last]: the part of each image that is read, as shares of its height"
    )
    resample: Literal["pyramid", "target", "none"] = Field(
        default="pyramid", description="'pyramid' (2.5 m, 1.6 m and its own GSD), 'target' (2.5 m) or 'none'"
    )

    @model_validator(mode="after")
    def _check(self) -> ImageSource:
        if self.layout == "images" and self.gsd_m is None and self.index is None:
            raise rule_error("gsd_m", None, "metres, or an index")
        first, last = self.rows
        if not 0 <= first < last <= 1:
            raise rule_error("rows", list(self.rows), "two shares of the height, as in [0, 0.6]")
        if min(self.rgb) < 1:
            raise rule_error("rgb", list(self.rgb), "three bands, counted from 1")
        return self


class SceneSource(_Source):
    """12-band scenes of Sentinel-2: a folder of them, or the chips of a run configuration."""

    run: PathOrUrl | None = Field(default=None, description="the path of a run configuration, whose chips are read")
    chips: Integer = Field(default=64, ge=1, description="how many chips of the run at most, an integer ≥ 1")

    @model_validator(mode="after")
    def _check(self) -> SceneSource:
        if (self.path is None) == (self.run is None):
            raise rule_error("path", self.path, "one of path, run")
        return self


class Workers(Section):
    """The processes that train together, each on its own batches."""

    count: Integer = Field(default=1, ge=1, description="an integer ≥ 1")
    cpus: Integer = Field(default=1, ge=1, description="cores of each worker, an integer ≥ 1")
    gpu: Boolean = Field(default=False, description="true for one GPU per worker, else false")
    restarts: Integer = Field(default=3, ge=0, description="how often lost workers are started again, an integer ≥ 0")
    address: Text | None = Field(default=None, description="a Ray cluster address, or null to start Ray here")


class Training(Section):
    """The settings of both trainings. Everything drawn at random depends on seed, step and worker alone."""

    out: PathOrUrl = Field(description="the folder of the training; continued if it exists")
    root: PathOrUrl = Field(default=".", validate_default=True, description="the folder that relative data paths mean")
    seed: Integer = Field(default=1, ge=0, lt=2**31, description="an integer from 0 to 2^31 - 1")
    steps: Integer = Field(ge=1, description="an integer ≥ 1")
    batch: Integer = Field(ge=1, description="samples a step and worker, an integer ≥ 1")
    rate: Number = Field(gt=0, description="the highest learning rate, above 0")
    warm_up: Integer = Field(ge=1, description="steps until the rate is reached, an integer ≥ 1")
    weight_decay: Number = Field(default=1e-4, ge=0, description="a number ≥ 0")
    ema: Number = Field(ge=0, lt=1, description="a number from 0 to less than 1")
    clip: Number = Field(gt=0, description="the largest norm of the gradient, above 0")
    loss: Literal["relative", "published"] = Field(default="relative", description="'relative' or 'published'")
    precision: Literal["mixed", "float32", "bfloat16"] = Field(
        default="mixed", description="'mixed', 'float32' or 'bfloat16'"
    )
    checkpoint_every: Integer = Field(default=100, ge=1, description="steps, an integer ≥ 1")
    validate_every: Integer = Field(default=150, ge=1, description="steps, an integer ≥ 1")
    samples_every: Integer = Field(default=150, ge=1, description="steps, an integer ≥ 1")
    workers: Workers = Field(default_factory=Workers, description="a section with count, cpus, gpu, …")


class SuperResolutionSettings(Training):
    """A training of stage 1: patches of `lr_px` pixels; `margin` more a side are cut off after the degradation."""

    data: Annotated[tuple[ImageSource, ...], Field(strict=False, min_length=1)] = Field(
        description="a list of sources with path, gsd_m, …"
    )
    network: Stage1Config = Field(
        default=SMALL, description="'small', 'base', 'published', or sizes by rrdb, encoder, unet"
    )
    start: Text = Field(default="random", description="'random', or the path of weights to start from")
    degradation: Literal["mixed", "published"] = Field(default="mixed", description="'mixed' or 'published'")
    radiometry: Literal["mixed", "published", "none"] = Field(
        default="mixed", description="'mixed', 'published' or 'none'"
    )
    steps: Integer = Field(default=8000, ge=1, description="an integer ≥ 1")
    batch: Integer = Field(default=16, ge=1, le=8192, description="a power of 2 up to 8192")
    lr_px: Integer = Field(default=32, ge=8, multiple_of=2, description="an even integer ≥ 8")
    margin: Integer = Field(default=2, ge=0, description="an integer ≥ 0")
    rate: Number = Field(default=8e-4, gt=0, description="the highest learning rate, above 0")
    encoder_rate: Number = Field(default=0.4, gt=0, description="of the encoders, relative to rate, above 0")
    warm_up: Integer = Field(default=200, ge=1, description="steps until the rate is reached, an integer ≥ 1")
    tail_weight: Number | None = Field(default=None, ge=0, description="a number ≥ 0, or null for the loss's own")
    contrast_weight: Number | None = Field(default=None, ge=0, description="a number ≥ 0, or null for the loss's own")
    ema: Number = Field(default=0.999, ge=0, lt=1, description="a number from 0 to less than 1")
    clip: Number = Field(default=2.0, gt=0, description="the largest norm of the gradient, above 0")
    validation_images: Integer = Field(default=24, ge=1, description="an integer ≥ 1")
    validation_px: Integer = Field(default=192, ge=32, multiple_of=8, description="a multiple of 8, at least 32")
    memory_gb: Number = Field(
        default=4.0, gt=0, description="gigabytes for images; if there are more, each is read when it is drawn"
    )

    @field_validator("network", mode="before")
    @classmethod
    def _network(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return _sizes_of(Stage1Config.from_dict, value)
        return (
            {"small": SMALL, "base": BASE, "published": PUBLISHED}.get(value, value)
            if isinstance(value, str)
            else value
        )

    @field_validator("start")
    @classmethod
    def _start(cls, value: str, info: ValidationInfo) -> str:
        return value if value == "random" else str(_below(value, info))

    @model_validator(mode="after")
    def _check(self) -> SuperResolutionSettings:
        if 8192 % self.batch:
            raise rule_error("batch", self.batch, "a power of 2 up to 8192")
        return self


class FusionSettings(Training):
    """A training of the fusion network: patches of `truth_px` pixels of the truth."""

    data: Annotated[tuple[SceneSource, ...], Field(strict=False, min_length=1)] = Field(
        description="a list of sources with path or run"
    )
    network: FusionConfig = Field(
        default=FUSION_SMALL,
        description="'small', 'folded', 'base', 'published', or sizes by generation ('v2', 'folded', 'corrected'), "
        "channels, blocks, growth",
    )
    variation: Literal["plain", "wide"] = Field(
        default="plain",
        description="'plain' (turns and brightness) or 'wide' (also MTF, shifts, haze, gains, lost bands)",
    )
    steps: Integer = Field(default=2500, ge=1, description="an integer ≥ 1")
    batch: Integer = Field(default=8, ge=1, description="samples a step and worker, an integer ≥ 1")
    truth_px: Integer = Field(default=96, ge=24, description="an integer ≥ 24")
    rate: Number = Field(default=1e-3, gt=0, description="the highest learning rate, above 0")
    warm_up: Integer = Field(default=100, ge=1, description="steps until the rate is reached, an integer ≥ 1")
    ema: Number = Field(default=0.998, ge=0, lt=1, description="a number from 0 to less than 1")
    clip: Number = Field(default=1.0, gt=0, description="the largest norm of the gradient, above 0")

    @field_validator("network", mode="before")
    @classmethod
    def _network(cls, value: object) -> object:
        if isinstance(value, Mapping):
            return _sizes_of(lambda sizes: FusionConfig(**sizes), value)
        named = {"small": FUSION_SMALL, "folded": FOLDED, "base": FUSION_BASE, "published": PUBLISHED_V2}
        return named.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> FusionSettings:
        generation = self.network.generation
        if generation == "v1":
            expected = "'v2', 'folded' or 'corrected': the first generation is not trained here"
            raise rule_error("network.generation", generation, expected)
        return self


def load_settings(kind: type[AnySettings], path: str | Path, overrides: Mapping[str, Any] | None = None) -> AnySettings:
    """The settings in a YAML file, checked.

    Args:
        kind: the settings of which training.
        overrides: values that replace the file's; dotted keys reach into sections.

    Paths that are relative in the file are relative to it; those in `overrides` to the working directory.

    Raises:
        ConfigError: one line that names every wrong key, the value found and what is allowed.
    """
    file = Path(path).expanduser()
    given = {
        key: str(value.expanduser().resolve()) if isinstance(value, Path) else value
        for key, value in (overrides or {}).items()
    }
    data = read_mapping(file, f"the keys {', '.join(kind.model_fields)}")
    return validated(kind, merge_overrides(data, given, kind), file)


def _below(path: str, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(folder, Path(path).expanduser()).resolve()


def _sizes_of(make: Callable[[Mapping[str, Any]], Any], value: Mapping[str, Any]) -> Any:
    """A network's sizes from what a file says; an error of theirs becomes one of the key `network`."""
    try:
        return make(value)
    except (TypeError, ValueError) as error:
        raise reason_error(str(error)) from None
