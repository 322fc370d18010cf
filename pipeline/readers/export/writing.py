"""Export part of a cube as Cloud Optimized GeoTIFFs, one for each zone, period and variable."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
import zarr
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from difffusr.kernels.bands import BANDS, SCALE, WAVELENGTH_NM
from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import Lattice, PixelWindow, territory, to_zone
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.storage import Storage, store_failures

#: Variables exported by default.
USUAL = ("reflectance", "quality")

#: Side of a file's tiles in pixels.
_TILE_PX = 512

#: Options of the draft that becomes a COG: fast to write and read, deleted soon after.
_DRAFT = {"compress": "zstd", "zstd_level": 1, "tiled": True, "blockxsize": _TILE_PX, "blockysize": _TILE_PX}


@dataclass(frozen=True)
class Export:
    """One file to write.

    Attributes:
        epsg: the zone.
        label: of the period, as a run names it.
        days: its first and last day.
        variable: the cube's variable.
        step: its position on the zone's time axis.
        window: the file's part of the zone, in absolute pixels of its lattice, within the cube.
        of_crs: the pixels of a cube of one CRS; None in a UTM zone.
    """

    epsg: int
    label: str
    days: tuple[date, date]
    variable: str
    step: int
    window: PixelWindow
    of_crs: Lattice | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        place = self.epsg if self.of_crs is None else self.of_crs.name.replace(":", "")
        return f"{place}_{self.label}_{self.variable}.tif"


def exports_of(
    cube: Cube, area: BaseGeometry | None, periods: Sequence[str] = (), variables: Sequence[str] = USUAL
) -> list[Export]:
    """The files to export for an area.

    Args:
        area: in EPSG:4326; None for the whole cube. A file covers the area's bounding box in its zone, widened to whole
            10 m pixels, in a cube of one CRS to whole pixels of its own, and cut at the cube's edge.
        periods: labels such as 2024-07; all if empty.
        variables: names of the cube's variables.

    Raises:
        ConfigError: the cube lacks a period or a variable, or does not cover the area.
    """
    known = sorted({label for epsg in cube.zones for label in cube.periods(epsg)})
    if lacking := [label for label in periods if label not in known]:
        raise ConfigError(f"--period: the cube has no {lacking[0]}; it has {', '.join(known)}")
    offered = sorted({name for epsg in cube.zones for name in cube.variables(epsg)})
    if lacking := [name for name in variables if name not in offered]:
        raise ConfigError(f"--variable: the cube has no {lacking[0]!r}; it has {', '.join(offered)}")
    out = []
    for epsg in cube.zones:
        of_crs = cube.of_crs(epsg)
        window = _part(cube.window(epsg), area, epsg, of_crs)
        if window is None:
            continue
        steps = {label: found for label, found in cube.periods(epsg).items() if not periods or label in periods}
        names = [name for name in variables if name in cube.variables(epsg)]
        out += [
            Export(epsg, label, days, name, step, window, of_crs)
            for label, (step, days) in steps.items()
            for name in names
        ]
    if not out:
        raise ConfigError(
            f"{cube.storage.url}: the cube does not cover this area in {', '.join(periods) or 'any period'}; it "
            f"covers {'; '.join(_ground(cube, epsg) for epsg in cube.zones)}"
        )
    return out


def _part(whole: PixelWindow, area: BaseGeometry | None, epsg: int, of_crs: Lattice | None) -> PixelWindow | None:
    """Bounding box of the area's part in the zone's territory; None if the zone's arrays do not reach it."""
    if area is None:
        return whole
    if of_crs is not None:
        return of_crs.part_of(whole, area)
    here = area.intersection(territory(epsg))
    if here.is_empty:
        return None
    left, bottom, right, top = to_zone(here, epsg).bounds
    _, _, _, origin = PixelWindow(0, 0, 0, 0).bounds_m(epsg)
    row, row_stop = _widened(origin - top, origin - bottom)
    col, col_stop = _widened(left, right)
    row, col = max(row * SCALE, whole.row), max(col * SCALE, whole.col)
    height, width = min(row_stop * SCALE, whole.row_stop) - row, min(col_stop * SCALE, whole.col_stop) - col
    return PixelWindow(row, col, height, width) if height > 0 and width > 0 else None


def _widened(start_m: float, stop_m: float) -> tuple[int, int]:
    """First and one past the last 10 m pixel; less than a centimetre of overlap is rounding error."""
    return math.floor(start_m / 10 + 1e-3), math.ceil(stop_m / 10 - 1e-3)


def _ground(cube: Cube, epsg: int) -> str:
    lattice = cube.lattice(epsg)
    bounds = (f"{side:.{5 if lattice.is_geographic else 0}f}" for side in lattice.bounds(cube.window(epsg)))
    return f"{', '.join(bounds)} in {lattice.name}"


def export_cogs(
    cube: Cube,
    exports: Sequence[Export],
    folder: Storage,
    *,
    overwrite: bool = False,
    scratch: Path | None = None,
    on_file: Callable[[Export], None] | None = None,
) -> list[str]:
    """Write the files; returns their URLs. A file appears whole or not at all.

    Pixels are the stored numbers, with scale and fill value in the file. Overviews are means of pixels with data; of
    labels, the nearest pixel. Memory holds one shard at a time, and GDAL's cache.

    Args:
        folder: to write to.
        overwrite: replace existing files; without it they are an error, raised before anything is written.
        scratch: a folder with room for a draft of the largest file; the system's by default.
        on_file: called after each file.

    Raises:
        ConfigError: a file exists already.
        StoreError: the cube cannot be read, or the folder cannot be written to.
    """
    if not overwrite and (there := [export.name for export in exports if folder.exists(export.name)]):
        raise ConfigError(f"{folder.url}/{there[0]}: exists already; add --overwrite, or choose another folder")
    written = []
    for export in exports:
        with tempfile.TemporaryDirectory(prefix="difffusr-export-", dir=scratch) as place:
            try:
                finished = _as_cog(_draft(cube, export, Path(place) / "draft.tif"), export)
            except store_failures(RasterioError) as error:
                raise StoreError(
                    f"{export.name}: cannot be written ({first_line(error)}); check that {place} has room "
                    "(--scratch names another place)"
                ) from None
            folder.put(export.name, finished)
        written.append(f"{folder.url}/{export.name}")
        if on_file is not None:
            on_file(export)
    return written


def _draft(cube: Cube, export: Export, path: Path) -> Path:
    """Write a tiled GeoTIFF without overviews."""
    array = cube.array(export.epsg, export.variable)
    attributes, spectral = dict(array.attrs), array.ndim == 4
    whole, window, lattice = cube.window(export.epsg), export.window, cube.lattice(export.epsg)
    profile = {
        "driver": "GTiff",
        "dtype": array.dtype,
        "count": len(BANDS) if spectral else 1,
        "height": window.height,
        "width": window.width,
        "crs": CRS.from_user_input(lattice.crs),
        "transform": lattice.geobox(window).transform,
        "nodata": array.fill_value,
        "BIGTIFF": "YES",
        **_DRAFT,
    }
    with rasterio.open(path, "w", **profile) as file:
        file.update_tags(
            TIFFTAG_DATETIME=f"{export.days[0]:%Y:%m:%d} 00:00:00",
            TIFFTAG_IMAGEDESCRIPTION=str(cube.attributes.get("title", "")),
            TIFFTAG_COPYRIGHT=str(cube.attributes.get("source", "")),
            PERIOD_START=export.days[0].isoformat(),
            PERIOD_END=export.days[1].isoformat(),
            **{name.upper(): str(attributes[name]) for name in ("flag_values", "flag_meanings") if name in attributes},
        )
        if spectral:
            file.scales, file.descriptions = (attributes["scale_factor"],) * len(BANDS), BANDS
            for number, band in enumerate(BANDS, 1):
                file.update_tags(number, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{WAVELENGTH_NM[band] / 1e3:.4f}")
        else:
            file.descriptions = (export.variable,)
        for rows, cols in _shards(whole, window, array):
            here = PixelWindow(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
            pixels = read_window(array, export.step, here, PixelWindow(0, 0, *array.shape[-2:]))
            place = Window(
                cols.start + whole.col - window.col,
                rows.start + whole.row - window.row,
                cols.stop - cols.start,
                rows.stop - rows.start,
            )
            file.write(pixels if spectral else pixels[None], window=place)
    return path


def _shards(whole: PixelWindow, window: PixelWindow, array: zarr.Array[Any]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the array that the window covers of each shard, row by row of shards."""
    height, width = (array.shards or array.chunks)[-2:]
    top, left = window.row - whole.row, window.col - whole.col
    bottom, right = top + window.height, left + window.width
    for row in range(top // height * height, bottom, height):
        for col in range(left // width * width, right, width):
            yield slice(max(row, top), min(row + height, bottom)), slice(max(col, left), min(col + width, right))


def _as_cog(draft: Path, export: Export) -> Path:
    """Convert a draft with GDAL's COG driver, and delete it."""
    finished = draft.with_name(export.name)
    averaged = export.variable.startswith("reflectance")
    rasterio.shutil.copy(
        draft,
        finished,
        driver="COG",
        COMPRESS="DEFLATE",
        PREDICTOR="YES",
        BLOCKSIZE=_TILE_PX,
        OVERVIEW_RESAMPLING="AVERAGE" if averaged else "NEAREST",
        BIGTIFF="IF_SAFER",
        NUM_THREADS="ALL_CPUS",
    )
    draft.unlink()
    return finished
