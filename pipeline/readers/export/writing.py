"""Writes files of a cube's pixels as Cloud Optimized GeoTIFFs, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
import zarr
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from difffusr.kernels.bands import BANDS, WAVELENGTH_NM
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.ground.errors import ConfigError, StoreError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.sources import array_of, inside, is_spectral, source_of
from difffusr.pipeline.readers.stac import colour_of, labels_of
from difffusr.pipeline.storage import Storage, store_failures

#: Side of the blocks of a file in pixels.
BLOCK_PX: Final = 512

#: Options of the draft that becomes a COG: fast to write and read, deleted soon after.
_DRAFT: Final = {
    "compress": "zstd", "zstd_level": 1, "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX,
    "SPARSE_OK": True,
}  # fmt: skip

#: Most cells along a side in which it is remembered where there are data.
_CELLS: Final = 512

#: The tag of a file that says what it was made of.
MADE_OF: Final = "DIFFFUSR_MADE_OF"

NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})

#: As what GIS show the bands if nobody chooses.
_SHOWN_AS: Final = {"B04": ColorInterp.red, "B03": ColorInterp.green, "B02": ColorInterp.blue}


def export_cogs(
    cube: Cube,
    exports: Sequence[Export],
    folder: Storage,
    *,
    overwrite: bool = False,
    scratch: Path | None = None,
    on_file: Callable[[Export], None] | None = None,
) -> list[str]:
    """Write the files, one after the other; returns their URLs. A file appears whole or not at all.

    Pixels are the stored numbers, with scale and fill value in the file; B04, B03 and B02 are its red, green and blue,
    and quality has its colours. Overviews are means of pixels with data; of labels, the nearest pixel. Memory holds one
    shard at a time, and GDAL's cache.

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
            for one, file in cogs_in(Path(place), cube, [export]).paths.items():
                folder.put(one.name, file)
        written.append(f"{folder.url}/{export.name}")
        if on_file is not None:
            on_file(export)
    return written


@dataclass(frozen=True)
class Cogs:
    """Files of one window and period on this machine.

    Attributes:
        paths: of the files; none of a tile without data.
        seen: (rows, columns) of cells, those that have data.
        cell: side of a cell in pixels.
    """

    paths: Mapping[Export, Path]
    seen: NDArray[np.bool_]
    cell: int


def cogs_in(
    place: Path, cube: Cube, exports: Sequence[Export], threads: int | None = None, tags: Mapping[str, str] = NO_TAGS
) -> Cogs:
    """Write files of one window and period into a folder of this machine.

    Args:
        threads: that compress; all cores by default.
        tags: one more for each variable, which says what its file was made of.

    Raises:
        StoreError: the cube cannot be read, or the folder is full.
    """
    try:
        drafts, seen, cell = _drafts(place, cube, exports, tags)
        if not seen.any() and exports[0].tile is not None:
            return Cogs({}, seen, cell)
        return Cogs({export: _as_cog(draft, export, threads) for export, draft in drafts.items()}, seen, cell)
    except store_failures(RasterioError) as error:
        raise StoreError(
            f"{exports[0].name}: cannot be written ({first_line(error)}); check that {place} has room "
            "(--scratch names another place)"
        ) from None


def _drafts(
    place: Path, cube: Cube, exports: Sequence[Export], tags: Mapping[str, str]
) -> tuple[dict[Export, Path], NDArray[np.bool_], int]:
    """Tiled GeoTIFFs without overviews, and the cells in which there is anything."""
    source, window = source_of(cube, exports[0]), exports[0].window
    cell = -(-max(window.height, window.width) // _CELLS)
    seen = np.zeros((-(-window.height // cell), -(-window.width // cell)), bool)
    paths = {export: place / f"draft-{export.variable}.tif" for export in exports}
    with ExitStack() as held:
        files = {export.variable: held.enter_context(_draft(cube, export, path)) for export, path in paths.items()}
        for name, file in files.items():
            if name in tags:
                file.update_tags(**{MADE_OF: tags[name]})
        for block in source.blocks(window):
            found = source.read(block, list(files))
            if found is None:
                continue
            here, (rows, cols) = inside(block, window)
            for name, file in files.items():
                _write(file, found[name][..., rows, cols], here, window)
            first = found.get("reflectance", next(iter(found.values())))[..., rows, cols]
            filled = first != files["reflectance" if "reflectance" in found else next(iter(found))].nodata
            _see(seen, cell, filled.any(axis=0) if filled.ndim == 3 else filled, here, window)
    return paths, seen, cell


def _see(seen: NDArray[np.bool_], cell: int, filled: NDArray[np.bool_], here: PixelWindow, window: PixelWindow) -> None:
    """Mark the cells in which some of the pixels of a part are filled."""
    top, left = here.row - window.row, here.col - window.col
    around = [(at % cell, -(at + size) % cell) for at, size in ((top, here.height), (left, here.width))]
    padded = np.pad(filled, around)
    cells = padded.reshape(padded.shape[0] // cell, cell, -1, cell).any(axis=(1, 3))
    row, col = top // cell, left // cell
    seen[row : row + cells.shape[0], col : col + cells.shape[1]] |= cells


def _write(file: Any, pixels: NDArray[Any], here: PixelWindow, window: PixelWindow) -> None:
    at = Window(here.col - window.col, here.row - window.row, here.width, here.height)
    file.write(pixels if pixels.ndim == 3 else pixels[None], window=at)


def _draft(cube: Cube, export: Export, path: Path) -> Any:
    """A new file, with all that it says but its pixels."""
    array = array_of(cube, export)
    spectral, lattice, window = is_spectral(array), export.lattice, export.window
    file = rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=array.dtype,
        count=len(BANDS) if spectral else 1,
        height=window.height,
        width=window.width,
        crs=CRS.from_user_input(lattice.crs),
        transform=lattice.geobox(window).transform,
        nodata=array.fill_value,
        BIGTIFF="YES",
        **_DRAFT,
    )
    _describe(file, cube, export, array)
    return file


def _describe(file: Any, cube: Cube, export: Export, array: zarr.Array[Any]) -> None:
    attributes: Mapping[str, Any] = dict(array.attrs)
    file.update_tags(
        TIFFTAG_DATETIME=f"{export.days[0]:%Y:%m:%d} 00:00:00",
        TIFFTAG_IMAGEDESCRIPTION=str(cube.attributes.get("title", "")),
        TIFFTAG_COPYRIGHT=str(cube.attributes.get("source", "")),
        PERIOD_START=export.days[0].isoformat(),
        PERIOD_END=export.days[1].isoformat(),
        **{name.upper(): str(attributes[name]) for name in ("flag_values", "flag_meanings") if name in attributes},
    )
    if is_spectral(array):
        file.scales, file.descriptions = (attributes["scale_factor"],) * len(BANDS), BANDS
        file.colorinterp = [_SHOWN_AS.get(band, ColorInterp.undefined) for band in BANDS]
        for number, band in enumerate(BANDS, 1):
            file.update_tags(number, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{WAVELENGTH_NM[band] / 1e3:.4f}")
        return
    file.descriptions = (export.variable,)
    if "flag_values" in attributes:
        file.write_colormap(1, colours_of(attributes))


def colours_of(attributes: Mapping[str, Any]) -> dict[int, tuple[int, int, int, int]]:
    """Red, green, blue and opacity of the numbers of a variable of labels, 0 to 255."""
    return {
        number: (*colour_of(label), 0 if meaning == "no_data" else 255)
        for number, (meaning, label) in labels_of(attributes).items()
    }


def names_beside(attributes: Mapping[str, Any]) -> bytes:
    """What lies beside a file of labels (`<file>.aux.xml`): GDAL reads from it what its numbers are called."""
    band = f'<PAMRasterBand band="1">\n{category_names(attributes)}</PAMRasterBand>'
    return f"<PAMDataset>\n{band}\n</PAMDataset>\n".encode()


def category_names(attributes: Mapping[str, Any]) -> str:
    """The names of labels as GDAL's XML has them, one for each number from 0 on."""
    known = {number: label.name for number, (_, label) in labels_of(attributes).items()}
    names = (escape(known.get(number, "")) for number in range(max(known, default=-1) + 1))
    inner = "".join(f"<Category>{name}</Category>\n" for name in names)
    return f"<CategoryNames>\n{inner}</CategoryNames>\n"


def _as_cog(draft: Path, export: Export, threads: int | None) -> Path:
    """Convert a draft with GDAL's COG driver, and delete it."""
    finished = draft.with_name(export.name)
    averaged = export.variable.startswith("reflectance")
    rasterio.shutil.copy(
        draft,
        finished,
        driver="COG",
        COMPRESS="DEFLATE",
        PREDICTOR="YES",
        BLOCKSIZE=BLOCK_PX,
        OVERVIEW_RESAMPLING="AVERAGE" if averaged else "NEAREST",
        BIGTIFF="IF_SAFER",
        NUM_THREADS="ALL_CPUS" if threads is None else threads,
    )
    draft.unlink()
    return finished
