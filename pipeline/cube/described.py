"""What a cube's metadata have to hold. Checked where a cube is opened, so that its readers find what they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pyproj import CRS

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.variables import variables
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import one_line
from difffusr.pipeline.storage import Storage, as_kind, parse_document, store_failures

#: What to do about metadata that are damaged.
ADVICE = "`difffusr rollback --to` a publication of `difffusr history` writes its metadata anew"

#: Levels above 2.5 m that a cube may have: at the fortieth, a pixel would be wider than the Earth.
_MOST_LEVELS = 24

#: Numbers of zones and of CRSs, see `Lattice.number`.
_MOST_NUMBER = 1 << 30

#: Pixels along a side of a zone or a shard: a zone has 8 million from north to south.
_MOST_PX = 1 << 26

Epsg = Annotated[int, Field(ge=1024, le=_MOST_NUMBER)]
_Words = dict[str, Any]
_PerBand = Annotated[list[float | None], Field(min_length=len(BANDS), max_length=len(BANDS))]
_Corners = Annotated[list[float], Field(min_length=4, max_length=4)]
_CornersPerBand = Annotated[list[_Corners], Field(min_length=len(BANDS), max_length=len(BANDS))]
_Side = Annotated[int, Field(gt=0, le=_MOST_PX)]
_Place = Annotated[int, Field(ge=-_MOST_PX, le=_MOST_PX)]


class _Part(BaseModel):
    """Some attributes; others may stand beside them."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")


class _Balance(_Part):
    gain: _PerBand
    factor: _PerBand
    offset: _CornersPerBand
    square: list[float]
    hazy: bool
    shift: _PerBand | None = None
    before: _PerBand | None = None
    after: _PerBand | None = None


class _Scene(_Part):
    id: str
    datetime: str = ""
    tile: str = ""
    baseline: str = ""
    collection: str | None = None
    balance: _Balance | Annotated[dict[str, Any], Field(max_length=0)] | None = None


class _Grid(_Part):
    chip_px: Annotated[int, Field(gt=0, le=_MOST_PX)]


class _Model(_Part):
    preset: str
    seed: int
    stage1: str | None = None
    fusion: str | None = None


class _Source(_Part):
    stac_api: str | None = None


class _Choice(_Part):
    balance: str = "none"
    sun: str = "scene"
    max_offset: float = 0.0


class _Config(_Part):
    grid: _Grid | None = None
    model: _Model | None = None
    source: _Source | None = None
    scenes: _Choice | None = None


class _Provenance(_Part):
    software: dict[str, str] = {}
    model: str = ""
    weights: dict[str, str] = {}
    sampling: _Words = {}
    config: _Config | None = None

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, str]) -> dict[str, str]:
        if not weights.keys() <= {"stage1", "fusion"}:
            raise ValueError("expected those of stage1 and fusion")
        return weights


_Number = Annotated[int, Field(ge=0)]


def _check_period(key: str) -> str:
    if key != "earlier":
        first, last = map(date.fromisoformat, key.split("/"))
        if first > last:
            raise ValueError("a period ends before it begins")
    return key


_Period = Annotated[str, AfterValidator(_check_period)]


class _Root(_Part):
    zones: Annotated[list[Epsg], Field(alias="difffusr:zones", min_length=1)]
    scenes: dict[_Number, _Scene] = Field(default={}, alias="difffusr:scenes")  # in cubes of earlier versions
    scene_pages: dict[_Period, Annotated[str, Field(pattern=r"^scenes/[0-9a-f]{64}$")]] = Field(
        default={}, alias="difffusr:scene_pages"
    )
    scene_count: Annotated[int, Field(ge=0)] = Field(default=0, alias="difffusr:scene_count")
    provenance: _Provenance = Field(default=_Provenance(), alias="difffusr:provenance")
    title: str = ""
    source: str = ""


class _Lattice(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, extra="forbid")

    crs: str
    pixel: Annotated[float, Field(gt=0)]
    origin: float
    west: Annotated[float, Field(ge=-180, lt=180)]


def _check_lattice(text: str | None) -> str | None:
    if text is not None:
        CRS.from_user_input(_Lattice.model_validate_json(text).crs)
    return text


class _Zone(_Part):
    window: tuple[_Place, _Place, _Side, _Side] = Field(alias="difffusr:window")
    grid: tuple[_Side, _Side] = Field(alias="difffusr:grid")
    periods: list[tuple[date, date]] = Field(alias="difffusr:periods", min_length=1)
    lineage: list[Annotated[int, Field(ge=0)]] = Field(default=[0], alias="difffusr:lineage", min_length=1)
    overviews: Annotated[int, Field(ge=0, le=_MOST_LEVELS)] = Field(default=0, alias="difffusr:overviews")
    samples: Annotated[int, Field(ge=0)] = Field(default=0, alias="difffusr:uncertainty_samples")
    composite: str = Field(default="none", alias="difffusr:composite")
    lattice: Annotated[str | None, AfterValidator(_check_lattice)] = Field(default=None, alias="difffusr:lattice")
    collar_m: Annotated[float, Field(gt=0, le=100_000)] | None = Field(default=None, alias="difffusr:collar_m")

    @field_validator("periods", mode="before")
    @classmethod
    def _told(cls, told: object) -> object:
        # Cubes of earlier versions have a list of lists.
        return json.loads(told) if isinstance(told, str) else told

    @field_validator("periods")
    @classmethod
    def _ordered(cls, periods: list[tuple[date, date]]) -> list[tuple[date, date]]:
        if any(start > end for start, end in periods) or len(set(periods)) < len(periods):
            raise ValueError("a period ends before it begins, or comes twice")
        return periods


class _Entry(_Part):
    asset: str
    transform: Annotated[list[float], Field(alias="spatial:transform", min_length=6, max_length=6)]

    @field_validator("transform")
    @classmethod
    def _has_size(cls, transform: list[float]) -> list[float]:
        if not transform[0] > 0:
            raise ValueError("pixels without a size")
        return transform


class _Multiscales(_Part):
    layout: Annotated[list[_Entry], Field(min_length=1)]


class _Pyramid(_Part):
    multiscales: _Multiscales | None = None


def check_root(attributes: Mapping[str, Any], storage: Storage) -> None:
    """Raise StoreError unless a root's attributes are those of a cube."""
    as_kind(dict(attributes), _Root, f"{storage.url}/zarr.json", ADVICE)


def check_scenes(text: str, where: str) -> dict[int, dict[str, Any]]:
    """Facts by number, of the text of a page of scenes. Raises StoreError unless it is one."""
    parse_document(text.encode(), dict[_Number, _Scene], where, ADVICE)
    return {int(number): facts for number, facts in json.loads(text).items()}


def check_zone(attributes: Mapping[str, Any], storage: Storage, epsg: int) -> None:
    """Raise StoreError unless the attributes are those of a zone's 2.5 m level."""
    as_kind(dict(attributes), _Zone, f"{storage.url}/{epsg}/0/zarr.json", ADVICE)


def check_levels(attributes: Mapping[str, Any], storage: Storage, epsg: int) -> None:
    """Raise StoreError unless the attributes of a zone list its levels, or say nothing of them."""
    as_kind(dict(attributes), _Pyramid, f"{storage.url}/{epsg}/zarr.json", ADVICE)


def check_arrays(group: Any, storage: Storage, epsg: int, level: int) -> None:
    """Raise StoreError unless the variables of a level have pixels as a zone's attributes say.

    Args:
        group: of that level, whose 2.5 m level `check_zone` has found to be right.
    """
    arrays = {name: array for name, array in group.arrays() if array.ndim > 2}
    where = f"{storage.url}/{epsg}/{level}"
    known = {variable.name: variable for variable in variables(1, "medoid")}
    if lacking := {"reflectance", "quality", "source"} - arrays.keys():
        raise StoreError(f"{where}: lacks {', '.join(sorted(lacking))}; {ADVICE}")
    shape = arrays["quality"].shape
    for name, array in arrays.items():
        wanted = known.get(name)
        if wanted is None:
            continue
        fits = array.dtype == wanted.dtype and array.shape == wanted.sizes(shape[0], *shape[-2:])
        told = isinstance(array.attrs.get("long_name"), str)
        scale = array.attrs.get("scale_factor", 1)
        told &= isinstance(scale, int | float) and not isinstance(scale, bool) and 0 < scale <= 1
        if not (fits and told and array.chunks and min(array.chunks) > 0):
            raise StoreError(f"{where}/{name}/zarr.json: is not that of a cube's {name}; {ADVICE}")


#: What Zarr and NumPy raise over documents that are not what they should be, besides a store's own errors.
_NOT_METADATA = (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, AssertionError, MemoryError)


@contextmanager
def understood(storage: Storage) -> Iterator[None]:
    """Turns what Zarr makes of damaged metadata into a StoreError of one line."""
    try:
        yield
    except store_failures(*_NOT_METADATA) as error:
        said = one_line(error) or type(error).__name__
        raise StoreError(f"{storage.url}: its metadata cannot be understood ({said}); {ADVICE}") from None
