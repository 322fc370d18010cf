"""An open file checked against its scene: where its pixels lie, and what their values mean. The file is right, not the
item."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from difffusr.pipeline.geo import LATTICE_M, origin_m
from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import Pixels
from difffusr.pipeline.ground.urls import bare_href, one_line
from difffusr.pipeline.scenes.hints import CLOUD_M, NATIVE_M
from difffusr.pipeline.scenes.item import Asset, Scene

#: Types of values that hold DN as they are, and those from which they are taken if every value is a DN.
_PLAIN, _OTHER = ("uint8", "uint16"), ("int16", "int32", "uint32", "float32", "float64")

_SCALE = 1e-4

#: Metres that a file may reach from edge to edge: two tiles of 110 km. A product has one.
_WIDEST_M = 220_000

#: Bytes of one block of a file, which are decoded at a time: a whole tile of 10 980² pixels of 16 bits has 241 MB.
#: Files made to be read in parts have blocks of 2 MB or less.
_LARGEST_BLOCK = 256 << 20


class Held(NamedTuple):
    """An open file with the metadata that every read needs: rasterio would ask GDAL each time.

    `what` names scene, band and file. `left`, `top` and `gsd_m` are in metres of the zone. `nodata` is the file's.
    """

    what: str
    file: rasterio.DatasetReader
    left: float
    top: float
    gsd_m: float
    height: int
    width: int
    nodata: float | None

    def dn(self, values: NDArray[np.generic], unmeasured: int) -> Pixels:
        """Values of the file as DN, with `unmeasured` where the file has its own nodata value, if that is not 0.

        uint8 stays uint8 if `unmeasured` fits; all else comes back as uint16. Raises ReadError for a value that is no
        DN: negative, above 65535, not a whole number.
        """
        plain = values.dtype.name in _PLAIN
        numbers: NDArray[Any] = values if plain else values.astype(np.float64)
        if self.nodata in (None, 0):
            missing = None
        else:
            missing = np.isnan(numbers) if np.isnan(self.nodata) else numbers == self.nodata
            numbers[missing] = 0
        wrong = None if plain else ~((numbers >= 0) & (numbers <= 65535) & (numbers == np.floor(numbers)))
        if wrong is not None and wrong.any():
            raise ReadError(
                f"{self.what} holds {values.dtype} with values such as {numbers[wrong].flat[0]:g}, expected whole DN "
                "from 0 to 65535; correct the item's href or leave the scene out"
            )
        if values.dtype != np.uint8 or unmeasured > 255:
            numbers = numbers.astype(np.uint16, copy=False)
        if missing is not None and unmeasured:
            numbers[missing] = unmeasured
        found: Pixels = numbers
        return found


def checked(scene: Scene, band: str, asset: Asset, file: rasterio.DatasetReader) -> Held:
    """An open file as one to read from.

    Raises ReadError where its pixels are not on the zone's grid, or it is not certain what they mean.
    """
    what = f"scene {scene.id}, {band}: {bare_href(asset.href)}"
    _check_content(what, band, asset, file)
    transform = _transform(what, scene, asset, file)
    gsd, step = transform.a, min(transform.a, LATTICE_M)
    straight = (transform.b, transform.d, transform.e) == (0, 0, -gsd)
    sizes = {float(NATIVE_M[band]), float(asset.gsd_m), *(CLOUD_M if band == "CLD" else ())}
    if not straight or gsd not in sizes or transform.c % step or (transform.f - origin_m(scene.epsg)) % step:
        expected = " or ".join(f"{size:g}" for size in sorted(sizes))
        raise ReadError(
            f"{what} has the transform {tuple(transform)[:6]}, expected north-up pixels of {expected} m on the zone's "
            "lattice; only products on their native UTM grid can be used"
        )
    if max(file.height, file.width) * gsd > _WIDEST_M:
        raise ReadError(
            f"{what} has {file.height:,} × {file.width:,} pixels of {gsd:g} m, at most {_WIDEST_M / gsd:,.0f} a side "
            "are read; leave the scene out"
        )
    check_block(what, file)
    return Held(what, file, transform.c, transform.f, gsd, file.height, file.width, _nodata(file))


def check_block(what: str, file: rasterio.DatasetReader) -> None:
    """Raise ReadError where decoding one block of a file, or of one of its overviews, takes too much memory."""
    height, width = file.block_shapes[0]
    size = height * width * np.dtype(file.dtypes[0]).itemsize
    if size > _LARGEST_BLOCK:
        raise ReadError(
            f"{what} has blocks of {height:,} × {width:,} pixels, {size >> 20:,} MB each, at most "
            f"{_LARGEST_BLOCK >> 20} are decoded; leave the scene out"
        )


def _nodata(file: rasterio.DatasetReader) -> float | None:
    """The file's nodata value; None for one that its pixels cannot have."""
    try:
        found: float | None = file.nodata
    except (ValueError, OverflowError, RasterioError):
        return None
    return found


def _transform(what: str, scene: Scene, asset: Asset, file: rasterio.DatasetReader) -> rasterio.Affine:
    """From pixels to metres of the scene's zone: the file's own. The item's serves where the file has no CRS, if it is
    for a file of this size, and the file has none or the same."""
    own: rasterio.Affine = file.transform
    if file.crs:
        epsg = file.crs.to_epsg()
        if epsg != scene.epsg:
            found = f"EPSG:{epsg}" if epsg else one_line(file.crs.to_string())
            raise ReadError(
                f"{what} has CRS {found}, its item says EPSG:{scene.epsg}; correct the item or leave the scene out"
            )
        return own
    if asset.transform is not None and asset.shape == file.shape:
        said = rasterio.Affine(*asset.transform)
        if own in (said, rasterio.Affine.identity()):
            return said
    raise ReadError(
        f"{what} has CRS none, its item says EPSG:{scene.epsg}, but not that its pixels lie where the file's do; fetch "
        "the file again, or leave the scene out"
    )


def _check_content(what: str, band: str, asset: Asset, file: rasterio.DatasetReader) -> None:
    """Raise ReadError unless a file has one band of DN: of 16 bits without sign (or 8, of a classification
    or probability), or of a type that can hold the same numbers. Floating-point numbers need a declared scale of
    0.0001, else they could be reflectance."""
    kind, scale = file.dtypes[0], file.scales[0]
    reflectance = band not in ("SCL", "CLD")
    expected = "uint16" if reflectance else "uint8 or uint16"
    if file.count != 1 or kind not in (*_PLAIN, *_OTHER) or (kind == "uint8" and reflectance):
        raise ReadError(
            f"{what} holds {file.count} band(s) of {kind}, expected one of {expected}; correct the item's href or "
            "leave the scene out"
        )
    if not reflectance:
        return
    if scale != 1 and abs(scale - _SCALE) > 1e-9:
        raise ReadError(f"{what} has values of scale {scale:g}, expected 0.0001; leave the scene out")
    if kind.startswith("float") and scale == 1 and asset.scale is None:
        raise ReadError(
            f"{what} holds {kind}, and neither the file nor its item says that its scale is 0.0001: it could be "
            "reflectance; add raster:scale to the item, or leave the scene out"
        )
