"""A calibration: the file that says how long the parts of a run take on a machine."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import bare_href, first_line
from difffusr.pipeline.plan import sampling_of
from difffusr.pipeline.storage import place_of, store_failures

Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Conditions(_Figures):
    """What the figures are valid for; a configuration that differs in any of them needs its own calibration."""

    preset: str
    solver: str = "ddim"  # the only one when calibrations did not say
    steps: int
    consistency: bool
    chip_px: int
    shard_px: int
    precision: str
    threads: int
    uncertainty: bool


class StartUp(_Figures):
    """Seconds until Ray answers, and from there until the actors have loaded the model."""

    ray: Figure
    actors: Figure


class Reading(_Figures):
    """Reading one scene over a chip: wall clock, core seconds, bytes fetched; and the share of planned further scenes
    that is read."""

    seconds: Figure
    cpu_seconds: Figure
    bytes: Figure
    further_share: Figure


class SceneStep(_Figures):
    """A step of planning, for one scene: wall clock, core seconds; bytes and requests over a network."""

    seconds: Figure
    cpu_seconds: Figure
    bytes: Figure
    requests: Figure

    def __add__(self, other: SceneStep) -> SceneStep:
        """Both steps, one after the other."""
        mine, yours = self.model_dump(), other.model_dump()
        return SceneStep(**{name: mine[name] + yours[name] for name in mine})


class Planning(_Figures):
    """Planning.

    Attributes:
        masks: who told ground from cloud.
        look: finding out what a scene shows clear, its mask included.
        angles: reading a granule's metadata; None if nothing was to be balanced.
        overviews: reading a scene where it is compared with others; None without `scenes.balance: full`.
        overlap_seconds: comparing two scenes, and their share of solving for all; None likewise.
    """

    masks: str
    look: SceneStep
    angles: SceneStep | None
    overviews: SceneStep | None
    overlap_seconds: Figure | None

    @property
    def balance(self) -> Literal["none", "nbar", "full"]:
        """The most that can be estimated of `scenes.balance`."""
        if self.angles is None:
            return "none"
        return "nbar" if self.overviews is None or self.overlap_seconds is None else "full"


class Staging(_Figures):
    """Writing one chip to the staging folder: wall clock, core seconds; bytes of one that no scene covers, and further
    bytes of one that is fully covered."""

    seconds: Figure
    cpu_seconds: Figure
    bytes: Figure
    bytes_covered: Figure


class ShardWriting(_Figures):
    """Blending and writing one shard while all cores do so: seconds and bytes of an empty one, further seconds for each
    chip that touches it, further bytes for each pixel with data."""

    seconds: Figure
    seconds_per_chip: Figure
    bytes: Figure
    bytes_per_pixel: Figure


class OverviewWriting(_Figures):
    """Making and writing one shard of an overview while all cores do so: seconds for each shard it is made of, bytes
    for each of its pixels with data."""

    seconds_per_shard: Figure
    bytes_per_pixel: Figure


class Publishing(_Figures):
    """Publishing one zone: seconds, and objects of metadata and coordinates for each of its levels."""

    seconds: Figure
    objects: int


class Calibration(_Figures):
    """How long a machine takes for the parts of a run.

    Attributes:
        version: of this layout.
        measured: when, ISO 8601, UTC.
        machine: cores and GPUs in words.
        gpu: whether actors computed on GPUs.
        actors: how many computed at the same time.
        load: load average per core before the measurement: figures taken at more than a few tenths are too high.
        source: whether chips were read from the configuration's own scenes or from generated ones on this machine.
        conditions: what the figures are valid for.
        model: seconds per chip and call of the model by batch, in one actor while all compute.
        planning: None in calibrations of version 2, which say nothing of it.
        start_up, read, stage, shard, overview, publish: the other parts.
    """

    version: Literal[2, 3]
    measured: str
    machine: str
    gpu: bool
    actors: int
    load: Figure
    source: Literal["own", "generated"]
    conditions: Conditions
    model: Annotated[dict[int, Figure], Field(min_length=1)]
    planning: Planning | None = None
    start_up: StartUp
    read: Reading
    stage: Staging
    shard: ShardWriting
    overview: OverviewWriting
    publish: Publishing

    @model_validator(mode="after")
    def _planning_since_version_3(self) -> Self:
        if (self.version == 2) != (self.planning is None):
            raise ValueError(f"planning: version {self.version} {'has none' if self.version == 2 else 'needs it'}")
        return self

    def to_json(self) -> str:
        """As a JSON document; `from_json` gives an equal one back."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "calibration") -> Calibration:
        """A calibration from its JSON document.

        Args:
            where: what an error calls the document.

        Raises:
            ConfigError: it is not a calibration of this version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"{where}: is not a calibration of this version ({f'{key}: ' if key else ''}{first['msg']}); "
                "make it again with `difffusr calibrate`"
            ) from None


def load_calibration(path_or_url: str) -> Calibration:
    """The calibration in a file.

    Raises:
        ConfigError: the file cannot be read or is not a calibration.
    """
    shown = bare_href(path_or_url)
    try:
        fs, path = place_of(path_or_url)
        data = bytes(fs.cat_file(path))
    except store_failures() as error:
        raise ConfigError(
            f"{shown}: cannot be read as a calibration ({first_line(error)}); `difffusr calibrate` makes one"
        ) from None
    return Calibration.from_json(data, shown)


def conditions_of(config: RunConfig) -> Conditions:
    """What a calibration made with a configuration is valid for."""

    sampling = sampling_of(config)
    return Conditions(
        preset=config.model.preset,
        solver=sampling.solver,
        steps=sampling.steps,
        consistency=sampling.consistency,
        chip_px=config.grid.chip_px,
        shard_px=config.grid.shard_px,
        precision=sampling.precision,
        threads=config.compute.cpus_per_actor,
        uncertainty=config.model.uncertainty_samples > 0,
    )
