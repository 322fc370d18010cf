"""Tiles as one raster: a VRT, which GDAL and all that is built on it open like a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from rasterio.crs import CRS

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.readers.export.chosen import Export
from difffusr.pipeline.readers.export.sources import array_of, is_spectral
from difffusr.pipeline.readers.export.writing import BLOCK_PX, category_names, colours_of

_TYPES: Final = {"uint8": "Byte", "uint16": "UInt16"}

_SHOWN_AS: Final = {"B04": "Red", "B03": "Green", "B02": "Blue"}


@dataclass(frozen=True)
class Part:
    """A tile of a VRT: the file's name, relative to the VRT, and its window."""

    href: str
    window: PixelWindow


def vrt_of(cube: Cube, export: Export, parts: Sequence[Part]) -> bytes:
    """The document of a VRT over tiles of a variable and period.

    Args:
        export: one of them.
        parts: all of them, in the lattice of `export`.
    """
    row, col = (min(axis) for axis in zip(*((part.window.row, part.window.col) for part in parts), strict=True))
    row_stop = max(part.window.row_stop for part in parts)
    col_stop = max(part.window.col_stop for part in parts)
    whole, lattice = PixelWindow(row, col, row_stop - row, col_stop - col), export.lattice
    array = array_of(cube, export)
    attributes, kind = dict(array.attrs), _TYPES[str(array.dtype)]
    names = BANDS if is_spectral(array) else (export.variable,)
    drawn = [
        _band(number, name, kind, int(array.fill_value), attributes, parts, whole)
        for number, name in enumerate(names, 1)
    ]
    return (
        f'<VRTDataset rasterXSize="{whole.width}" rasterYSize="{whole.height}">\n'
        f"<SRS>{escape(CRS.from_user_input(lattice.crs).to_wkt())}</SRS>\n"
        f"<GeoTransform>{', '.join(repr(float(value)) for value in _transform(lattice, whole))}</GeoTransform>\n"
        f"{''.join(drawn)}</VRTDataset>\n"
    ).encode()


def _band(
    number: int,
    name: str,
    kind: str,
    nodata: int,
    attributes: Mapping[str, Any],
    parts: Sequence[Part],
    whole: PixelWindow,
) -> str:
    scale = f"<Scale>{attributes['scale_factor']!r}</Scale>\n" if "scale_factor" in attributes else ""
    labels = _labels(attributes) if "flag_values" in attributes else ""
    shown = "Palette" if labels else _SHOWN_AS.get(name)
    colour = "" if shown is None else f"<ColorInterp>{shown}</ColorInterp>\n"
    sources = "".join(_source(number, kind, part, whole) for part in parts)
    return (
        f'<VRTRasterBand dataType="{kind}" band="{number}">\n<Description>{escape(name)}</Description>\n'
        f"<NoDataValue>{nodata}</NoDataValue>\n{scale}{colour}{labels}{sources}</VRTRasterBand>\n"
    )


def _labels(attributes: Mapping[str, Any]) -> str:
    colours = colours_of(attributes)
    entries = (colours.get(number, (0, 0, 0, 0)) for number in range(max(colours) + 1))
    table = "".join('<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>\n'.format(*entry) for entry in entries)
    return f"{category_names(attributes)}<ColorTable>\n{table}</ColorTable>\n"


def _source(number: int, kind: str, part: Part, whole: PixelWindow) -> str:
    height, width = part.window.height, part.window.width
    size = f'xSize="{width}" ySize="{height}"'
    return (
        f'<SimpleSource>\n<SourceFilename relativeToVRT="1">{escape(part.href)}</SourceFilename>\n'
        f"<SourceBand>{number}</SourceBand>\n"
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType={quoteattr(kind)} '
        f'BlockXSize="{BLOCK_PX}" BlockYSize="{BLOCK_PX}"/>\n<SrcRect xOff="0" yOff="0" {size}/>\n'
        f'<DstRect xOff="{part.window.col - whole.col}" yOff="{part.window.row - whole.row}" {size}/>\n'
        "</SimpleSource>\n"
    )


def _transform(lattice: Lattice, window: PixelWindow) -> tuple[float, ...]:
    left, _, _, top = lattice.bounds(window)
    return left, lattice.pixel, 0.0, top, 0.0, -lattice.pixel
