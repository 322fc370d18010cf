"""How a cube is laid out: zones, levels, shards, and the keys of their chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from difffusr.pipeline.geo import Grid, Lattice, OverviewIndex, PixelWindow, ShardIndex

#: Path of the 2.5 m level inside a zone's group.
BASE_LEVEL = "0"

#: Steps of time in a chunk of `time` of a new cube: whoever opens it reads one, for 85 years of months.
TIME_CHUNK = 1024

#: A zone is halved until its longer side has no more chunks than this.
_SMALLEST_CHUNKS = 2

#: A shard of the 2.5 m level or of an overview.
AnyShard = ShardIndex | OverviewIndex


@dataclass(frozen=True)
class Zone:
    """One zone of a cube, as a run is about to publish it.

    Attributes:
        epsg: the zone; in a cube of one CRS that CRS's number, see `Lattice.number`.
        window: what its arrays cover: whole shards, in absolute pixels of its lattice.
        periods: (start, end) of each step of the time axis, both days inclusive.
        step: position of the run's period on that axis.
        overviews: number of levels above 2.5 m, each at half the resolution of the one before.
        uncertainty_samples: number of samples behind `reflectance_std`; 0 in a zone without that variable.
        composite: what several looks of a chip become: "none" in a zone without `looks`.
        lineage: revisions that led to this state, this one last: shards not rewritten in one are those of the
            revisions before.
        seen: the revisions of the lineage in which readers see the run's period; empty if they do not see it.
        revised: whether readers do not see its revision yet.
        time_chunk: steps in a chunk of `time` and `time_bnds`.
        of_crs: its pixels in a cube of one CRS; None in a UTM zone.
        collar_m: how far beyond its border it shows the ground, in metres; None where that is not known.
    """

    epsg: int
    window: PixelWindow
    periods: tuple[tuple[date, date], ...]
    step: int
    overviews: int = 0
    uncertainty_samples: int = 0
    lineage: tuple[int, ...] = (0,)
    seen: tuple[int, ...] = ()
    revised: bool = False
    composite: str = "none"
    time_chunk: int = TIME_CHUNK
    of_crs: Lattice | None = None
    collar_m: float | None = None

    @property
    def lattice(self) -> Lattice:
        """Its pixels."""
        return self.of_crs or Lattice.of_zone(self.epsg)

    @property
    def period_days(self) -> tuple[date, date]:
        """First and last day of the run's period."""
        return self.periods[self.step]

    @property
    def revision(self) -> int:
        """Its revision, which chooses the keys of its chunks."""
        return self.lineage[-1]

    @property
    def is_written(self) -> bool:
        """Whether its shards are written: not if readers see the period already and nothing of it changes."""
        return not self.seen or self.revised

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that have shards."""
        spread = ("reflectance_std",) if self.uncertainty_samples else ()
        return ("reflectance", "quality", "source", *spread, *(("looks",) if self.composite != "none" else ()))

    @property
    def path(self) -> str:
        """Path of the 2.5 m level's group."""
        return self.level_path(0)

    @property
    def levels(self) -> range:
        """All levels, the 2.5 m one first."""
        return range(1 + self.overviews)

    def pixel(self, level: int) -> float:
        """Side of a level's pixel in the CRS's units."""
        return self.lattice.pixel * 2**level

    def level_path(self, level: int) -> str:
        """Path of a level's group."""
        return f"{self.epsg}/{level}"

    def level_shape(self, level: int) -> tuple[int, int]:
        """(height, width) of a level's arrays in its own pixels."""
        return -(-self.window.height >> level), -(-self.window.width >> level)

    def position(self, shard: AnyShard, grid: Grid) -> OverviewIndex:
        """Level of a shard, and its row and column in that level's arrays, in shards."""
        if isinstance(shard, OverviewIndex):
            return shard
        return OverviewIndex(
            0, shard.row - self.window.row // grid.shard_px, shard.col - self.window.col // grid.shard_px
        )


def lattice_of(attributes: Mapping[str, Any]) -> Lattice | None:
    """The pixels of a cube of one CRS, from the attributes of its finest level; None of a UTM zone."""
    told = attributes.get("difffusr:lattice")
    return None if told is None else Lattice(**json.loads(told))


def lattice_text(lattice: Lattice) -> str:
    """A lattice as the attribute `difffusr:lattice`: JSON text, as netCDF has no objects."""
    return json.dumps(asdict(lattice))


def periods_text(periods: Sequence[tuple[date, date]]) -> str:
    """Periods as the attribute `difffusr:periods` of a zone's 2.5 m level: JSON text, as netCDF has no nested lists."""
    return json.dumps([[start.isoformat(), end.isoformat()] for start, end in periods])


def periods_of(attributes: Mapping[str, Any]) -> list[tuple[date, date]]:
    """First and last day of each step of time, from the attributes of a zone's 2.5 m level."""
    told = attributes["difffusr:periods"]
    # Cubes of earlier versions have a list of lists.
    pairs = json.loads(told) if isinstance(told, str) else told
    return [(date.fromisoformat(start), date.fromisoformat(end)) for start, end in pairs]


#: The chunk key encodings of the Zarr v3 core specification, in the order of revisions: name, separator.
ENCODINGS = (("default", "/"), ("v2", "/"), ("default", "."), ("v2", "."))


def chunk_key(revision: int, index: Sequence[int]) -> str:
    """Key of a chunk below its array, for a zone's revision."""
    name, separator = ENCODINGS[revision % len(ENCODINGS)]
    return separator.join((*(("c",) if name == "default" else ()), *map(str, index)))


def chunk_index(revision: int, key: str) -> tuple[int, ...] | None:
    """Index of the chunk with this key below an array of two or more dimensions; None for another revision's key."""
    name, separator = ENCODINGS[revision % len(ENCODINGS)]
    parts = key.split(separator)
    if name == "default" and parts.pop(0) != "c":
        return None
    if len(parts) < 2 or not all(part.isdigit() for part in parts):
        return None
    return tuple(map(int, parts))


def overviews_over(window: PixelWindow, grid: Grid) -> int:
    """Number of overviews of a zone: halved until its longer side is at most two chunks."""
    if grid.shard_px % 2:
        return 0  # no shard would cover a whole quarter of the next
    longer, levels = max(window.height, window.width), 0
    while -(-longer >> levels) > _SMALLEST_CHUNKS * grid.chunk_px:
        levels += 1
    return levels
