"""The sections of a run's configuration."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from difffusr.pipeline.config.compute import ComputeSection, FailuresSection
from difffusr.pipeline.config.costs import LATER_PRICES, CostsSection
from difffusr.pipeline.config.deadlines import MaybeDeadline
from difffusr.pipeline.config.notify import NotifySection
from difffusr.pipeline.config.section import Section, rule_error
from difffusr.pipeline.config.stores import DerivedSection, StoreSection
from difffusr.pipeline.config.values import (
    SAMPLER_NAMES,
    Boolean,
    Bucket,
    Date,
    HttpUrl,
    Integer,
    Number,
    PathOrUrl,
    Policy,
    SamplerName,
    Share,
    StorageUrl,
    Text,
    Tile,
)
from difffusr.pipeline.ground.urls import shown_url, without_secrets


class AreaSection(Section):
    """Where: exactly one of a GeoJSON file, another file of polygons, a box, a list of MGRS tiles."""

    one_of = ("geojson", "file", "bbox", "tiles")

    geojson: PathOrUrl | None = Field(default=None, description="the path of a GeoJSON file with polygons")
    file: PathOrUrl | None = Field(
        default=None, description="the path of a GeoPackage, Shapefile, FlatGeobuf or other vector file with polygons"
    )
    layer: Text | None = Field(
        default=None, description="the name of a layer of area.file, or null for its only one with polygons"
    )
    where: Text | None = Field(
        default=None, description="a condition on area.file's attributes such as \"ISO_A3 = 'LUX'\", or null for all"
    )
    bbox: Annotated[tuple[Number, Number, Number, Number], Field(strict=False)] | None = Field(
        default=None, description="[west, south, east, north] in degrees (WGS84), west < east unless it crosses 180°"
    )
    tiles: Annotated[tuple[Tile, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="a list of MGRS tile ids such as 48QUE"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("layer", "where"):
            if getattr(self, key) is not None and self.file is None:
                raise rule_error(key, getattr(self, key), "null: only valid with area.file")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            inside = -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90
            # A box from Fiji to Samoa runs from 176° to -171°; one from 10° to 5° is a mistake.
            if not inside or west == east or 0 < west - east < 180:
                raise rule_error("bbox", list(self.bbox), self.allowed("bbox"))
        return self


class PeriodSection(Section):
    """When: first and last day, both included, UTC; a file may give its label instead, or `last-month`."""

    start: Date = Field(description="a date such as 2023-06-01")
    end: Date = Field(description="a date such as 2023-06-30")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, str | int) and not isinstance(data, bool):
            today = (info.context or {}).get("today") or dt.datetime.now(dt.UTC).date()
            return _days_of(str(data).strip(), today) or data
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start > self.end:
            raise rule_error("end", str(self.end), f"a date not before period.start = {self.start}")
        return self

    @property
    def label(self) -> str:
        """`2023` for a whole year, `2023-06` for a whole month, else `2023-06-05_2023-07-04`."""
        after = self.end + dt.timedelta(days=1)
        if self.start.day == 1 and after.day == 1:
            months = 12 * (after.year - self.start.year) + after.month - self.start.month
            if months == 1:
                return f"{self.start:%Y-%m}"
            if months == 12 and self.start.month == 1:
                return f"{self.start:%Y}"
        return f"{self.start}_{self.end}"


def _days_of(name: str, today: dt.date) -> dict[str, dt.date] | None:
    """First and last day of `2023`, `2023-06`, `2023-06-05_2023-07-04` or `last-month`; None for any other name."""
    day = dt.timedelta(days=1)
    if name == "last-month":
        name = f"{today.replace(day=1) - day:%Y-%m}"
    try:
        if re.fullmatch(r"\d{4}", name):
            return {"start": dt.date(int(name), 1, 1), "end": dt.date(int(name), 12, 31)}
        if re.fullmatch(r"\d{4}-\d\d", name):
            first = dt.date.fromisoformat(f"{name}-01")
            return {"start": first, "end": (first + 31 * day).replace(day=1) - day}
        if match := re.fullmatch(r"(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)", name):
            return {"start": dt.date.fromisoformat(match[1]), "end": dt.date.fromisoformat(match[2])}
    except (ValueError, OverflowError):  # no such year, month or day
        return None
    return None


class SourceSection(Section):
    """Which catalogue: exactly one of a STAC API, a static catalogue, a file of items; or the cube of UTM zones that a
    cube of one CRS is made of."""

    one_of = ("stac_api", "static_catalog", "items", "cube")

    stac_api: HttpUrl | None = Field(default=None, description="the http(s) URL of a STAC API")
    static_catalog: PathOrUrl | None = Field(default=None, description="the path or URL of a catalog.json")
    items: PathOrUrl | None = Field(
        default=None, description="the path or URL of a STAC item collection (GeoJSON, or .parquet for stac-geoparquet)"
    )
    cube: StorageUrl | None = Field(
        default=None, description="the path or URL of a cube whose UTM zones are brought into grid.crs"
    )
    staging: StorageUrl | None = Field(
        default=None, description="the staging folder of source.cube, or null where it is beside it"
    )
    collection: Text | None = Field(default="sentinel-2-l2a", description="a collection id, or null for any collection")
    unsigned: Annotated[tuple[Bucket, ...], Field(strict=False)] = Field(
        default=(), description="a list of S3 buckets that everybody may read without keys"
    )
    max_cloud_cover: Number = Field(default=100.0, ge=0, le=100, description="a number from 0 to 100 (per cent)")
    max_nodata: Number = Field(default=100.0, ge=0, le=100, description="a number from 0 to 100 (per cent)")
    max_snow_cover: Number = Field(default=100.0, ge=0, le=100, description="a number from 0 to 100 (per cent)")
    min_sun_elevation: Number = Field(default=-90.0, ge=-90, le=90, description="a number from -90 to 90 (degrees)")
    max_left_out: Share | None = Field(
        default=None,
        ge=0,
        le=1,
        description="a share such as 10% (of the items of area and period that are not understood and so left out; "
        "more than that stop), or null for 10%, but never fewer than ten items",
    )


class GridSection(Section):
    """Sizes of chips (10 m pixels) and of shards and chunks of the cube (2.5 m pixels)."""

    chip_px: Integer = Field(default=192, gt=0, multiple_of=6, description="a positive multiple of 6 (10 m pixels)")
    overlap_px: Integer = Field(
        default=24, gt=0, multiple_of=6, description="a positive multiple of 6, less than chip_px / 2 (10 m pixels)"
    )
    shard_px: Integer = Field(default=2048, gt=0, description="a positive multiple of chunk_px (2.5 m pixels)")
    chunk_px: Integer = Field(default=256, gt=0, description="a positive integer (2.5 m pixels)")
    collar_m: Number | None = Field(
        default=None,
        ge=0,
        le=20_000,
        description="metres that a zone shows beyond its border, or null for 1000 (in a new cube)",
    )
    crs: Text | None = Field(default=None, description="a CRS such as EPSG:3035, with source.cube, or null")
    resolution: Number | None = Field(
        default=None, gt=0, description="the side of a pixel of grid.crs in its units, or null for about 2.5 m"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.overlap_px * 2 >= self.chip_px:
            raise rule_error("overlap_px", self.overlap_px, f"less than half of grid.chip_px = {self.chip_px}")
        if self.shard_px % self.chunk_px:
            raise rule_error("shard_px", self.shard_px, f"a multiple of grid.chunk_px = {self.chunk_px}")
        return self


class ModelSection(Section):
    """Which networks, and how they are sampled."""

    preset: Literal["small", "published"] = Field(default="small", description="'small' or 'published'")
    stage1: PathOrUrl | None = Field(
        default=None, description="the path or URL of the super-resolution weights, or null"
    )
    fusion: PathOrUrl | None = Field(default=None, description="the path or URL of the fusion weights, or null")
    sampler: SamplerName | None = Field(default=None, description=f"{SAMPLER_NAMES}, or null for the preset's own")
    sampler_steps: Integer | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="an integer from 2 that divides 1000 (from 2 to 50 with model.sampler 'fast'), or null for the "
        "sampler's own",
    )
    temperature: Number | None = Field(
        default=None, ge=0, le=2, description="a number from 0 to 2 (spread of the noise), or null for the preset's own"
    )
    consistency: Boolean = Field(default=True, description="true or false")
    seed: Integer = Field(default=0, ge=0, lt=2**63, description="an integer from 0 to 2^63 - 1")
    uncertainty_samples: Integer = Field(
        default=0, ge=0, le=32, description="0 (off) or an integer from 2 to 32 (model calls a chip)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sampler == "draft":  # no diffusion, no chance
            for key, none in (("sampler_steps", None), ("temperature", None), ("uncertainty_samples", 0)):
                if getattr(self, key) != none:
                    expected = f"{'null' if none is None else none}: not valid with model.sampler 'draft'"
                    raise rule_error(key, getattr(self, key), expected)
        steps = self.sampler_steps
        if steps is not None and (steps > 50 if self.sampler == "fast" else 1000 % steps):
            raise rule_error("sampler_steps", steps, self.allowed("sampler_steps"))
        if self.uncertainty_samples == 1:  # one sample has no spread
            expected = self.allowed("uncertainty_samples")
            raise rule_error("uncertainty_samples", self.uncertainty_samples, expected)
        if self.preset == "published":
            lacking = [key for key in ("stage1", "fusion") if getattr(self, key) is None]
            if lacking:
                expected = "the path or URL of the weights: model.preset 'published' comes without any"
                raise rule_error(" and model.".join(lacking), None, expected)
        return self


class ScenesSection(Section):
    """How a chip's pixels are chosen from the scenes that cover it."""

    policy: Policy = Field(
        default="neighbours", description="'neighbours', 'clearest', 'newest' or a date as 'closest_to(2023-07-15)'"
    )
    border_cost: Number = Field(
        default=0.15,
        ge=0,
        le=1,
        description="a number from 0 to 1 (clear share that 'neighbours' gives up to spare a chip one border)",
    )
    max_scenes: Integer = Field(default=3, ge=1, le=16, description="an integer from 1 to 16 (scenes a chip)")
    fill_until: Number = Field(
        default=0.99, ge=0, le=1, description="a number from 0 to 1 (clear share at which no further scene is added)"
    )
    min_clear_share: Number = Field(
        default=0.0,
        ge=0,
        le=1,
        description="a number from 0 to 1 (clear share of a chip)",
    )
    allow_cloudy: Boolean = Field(default=True, description="true or false")
    masks: Literal["scl", "csmask", "asset"] = Field(
        default="scl",
        description="'scl' (the scene classification), 'csmask' (a network, ukis-csmask) or 'asset' (the item's own "
        "cloud probability)",
    )
    max_cloud_probability: Number = Field(
        default=40.0, ge=0, le=100, description="a number from 0 to 100 (per cent; more counts as cloud, with 'asset')"
    )
    dilate_cloud_m: Number = Field(default=0.0, ge=0, le=2000, description="a number from 0 to 2000 (metres)")
    dilate_shadow_m: Number = Field(default=0.0, ge=0, le=2000, description="a number from 0 to 2000 (metres)")
    balance: Literal["none", "nbar", "full"] = Field(
        default="none",
        description="'none', 'nbar' (view angles) or 'full' (gain and offset of each granule and band as well)",
    )
    sun: Literal["scene", "noon"] = Field(
        default="scene", description="'scene' or 'noon' (sun that 'nbar' and 'full' normalise to)"
    )
    max_offset: Number = Field(
        default=0.04,
        gt=0,
        le=1,
        description="a number from 0 to 1 (reflectance; a scene that 'full' would move by more counts as hazy)",
    )
    composite: Literal["none", "medoid", "geomedian"] = Field(
        default="none", description="'none', 'medoid' or 'geomedian'"
    )
    looks: Integer = Field(default=8, ge=2, le=16, description="an integer from 2 to 16 (looks of a composite)")
    blend: Literal["hard", "two-band"] = Field(
        default="hard", description="'hard' or 'two-band' (how two scenes meet inside a chip)"
    )


#: Settings of cubes of one CRS, without which hashes are what they were.
_LATER_PLACES = {"source": ("cube", "staging"), "grid": ("collar_m", "crs", "resolution")}

#: Settings that `scenes` got after the first cubes were made.
_LATER_SCENES = (
    "masks",
    "max_cloud_probability",
    "dilate_cloud_m",
    "dilate_shadow_m",
    "balance",
    "sun",
    "max_offset",
    "composite",
    "looks",
    "blend",
)


class SkipSection(Section):
    """Chips that skip the networks: those that show nothing else are enlarged bicubically and flagged."""

    water: Boolean = Field(default=False, description="true or false (chips of open water alone)")
    cloud: Boolean = Field(default=False, description="true or false (chips of cloud alone)")


#: A box around the globe: an area that takes everything.
EVERYWHERE = (-180.0, -90.0, 180.0, 90.0)


class RunConfig(Section):
    """The whole configuration of a run. Frozen; nothing else is read from files or the environment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="letters, digits, '.', '_' and '-', beginning with a letter or digit",
    )
    area: AreaSection = Field(description="a section with one of geojson, file, bbox, tiles")
    period: PeriodSection = Field(
        description="a section with start and end, a month such as 2023-06, a year such as 2023, or last-month"
    )
    source: SourceSection = Field(description="a section with one of stac_api, static_catalog, items")
    grid: GridSection = Field(default_factory=GridSection, description="a section with chip_px, overlap_px, …")
    model: ModelSection = Field(default_factory=ModelSection, description="a section with preset, stage1, fusion, …")
    scenes: ScenesSection = Field(default_factory=ScenesSection, description="a section with max_scenes, …")
    skip: SkipSection = Field(default_factory=SkipSection, description="a section with water, cloud")
    store: StoreSection = Field(description="a section with url")
    compute: ComputeSection = Field(default_factory=ComputeSection, description="a section with address, actors_min, …")
    failures: FailuresSection = Field(default_factory=FailuresSection, description="a section with max_failed, …")
    costs: CostsSection = Field(default_factory=CostsSection, description="a section with calibration, prices, …")
    budget: Number | None = Field(
        default=None, ge=0, description="a number ≥ 0 (a run estimated to cost more does not start), or null"
    )
    notify: NotifySection = Field(
        default_factory=NotifySection, description="a section with url or url_env, secret_env, events"
    )
    deadline: MaybeDeadline = Field(
        default=None,
        description="a time such as 2026-12-01T06:00Z, a duration from the start such as 6h or 1h30m, or null",
    )
    derived: Annotated[tuple[DerivedSection, ...], Field(strict=False)] = Field(
        default=(), description="a list of sections with name, url, crs, … (cubes of one CRS made of this one)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.budget is not None and self.costs.calibration is None and self.source.cube is None:
            expected = "null, or costs.calibration as well: the file that `difffusr calibrate` writes"
            raise rule_error("budget", self.budget, expected)
        for key in ("crs", "resolution"):
            if self.source.cube is None and getattr(self.grid, key) is not None:
                raise rule_error(f"grid.{key}", getattr(self.grid, key), "null: only valid with source.cube")
        names = [one.name for one in self.derived]
        if len(set(names)) < len(names):
            raise rule_error("derived", ", ".join(names), "sections with different names")
        if self.derived and self.source.cube is not None:
            raise rule_error("derived", ", ".join(names), "nothing: source.cube is not a catalogue")
        if self.source.cube is not None:
            if self.grid.crs is None:
                raise rule_error("grid.crs", None, "a CRS such as EPSG:3035: source.cube is brought into it")
            if self.source.cube.rstrip("/") == self.store.url.rstrip("/"):
                raise rule_error("store.url", shown_url(self.store.url), "another place than source.cube")
        return self

    def of_derived(self, name: str) -> RunConfig:
        """The configuration of the run that makes a derived cube.

        Raises:
            KeyError: there is none of that name.
        """
        one = {one.name: one for one in self.derived}[name]
        return RunConfig.model_validate(
            {
                "name": f"{self.name}-{one.name}"[:100],
                "area": {"bbox": EVERYWHERE},
                "period": self.period,
                "source": {"cube": self.store.url, "staging": self.store.staging},
                "grid": {name: getattr(one, name) for name in ("crs", "resolution", "shard_px", "chunk_px")},
                "store": {
                    "url": one.url, "staging": one.staging, "storage_options": self.store.storage_options,
                    "keep_revisions": one.keep_revisions,
                },
                "compute": self.compute,
                "costs": self.costs,
                "notify": self.notify,
                "deadline": self.deadline,
            }
        )  # fmt: skip

    def canonical(self) -> dict[str, Any]:
        """The configuration as JSON-able values, for manifests and hashes, without secrets, who is told of a run, and
        what says how files are opened, not which. Without what came later where it is not used: hashes are those of
        before these keys."""
        data = self.model_dump(
            mode="json",
            exclude={
                "store": {"storage_options"}, "source": {"unsigned"}, "compute": {"preemption"}, "derived": True,
                "deadline": True, "notify": True,
            },
        )  # fmt: skip
        if not any(data["skip"].values()):
            del data["skip"]
        for key in _LATER_SCENES:
            if data["scenes"][key] == ScenesSection.model_fields[key].default:
                del data["scenes"][key]
        for section, keys in _LATER_PLACES.items():
            for key in keys:
                if data[section][key] is None:
                    del data[section][key]
        for key in LATER_PRICES:
            if data["costs"]["prices"][key] is None:
                del data["costs"]["prices"][key]
        return {key: without_secrets(value) for key, value in data.items()}
