"""A small picture of what a zone shows in a period, in true colour."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from difffusr.kernels.bands import band_indices
from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.readers.drawing import drawn
from difffusr.pipeline.readers.footprints import Ground, level_within

#: Longest side in pixels, and pixels that are read for it at most.
_SIDE_PX, _READ = 320, 640 * 640

_RED_GREEN_BLUE = ("B04", "B03", "B02")


def thumbnail(cube: Cube, epsg: int, step: int, ground: Ground) -> bytes:
    """A PNG of the ground, transparent where there is no data.

    Raises:
        StoreError: the cube cannot be read.
    """
    level, window = _seen(cube, epsg, ground)
    array = cube.array(epsg, "reflectance", level)
    whole = PixelWindow(0, 0, *array.shape[-2:])
    found = read_window(array, step, window, whole)[band_indices(list(_RED_GREEN_BLUE))]
    picture = Image.fromarray(drawn(found, np.asarray((found > 0).all(axis=0))), "RGBA")
    picture.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _seen(cube: Cube, epsg: int, ground: Ground) -> tuple[int, PixelWindow]:
    """The finest level in which the ground has few enough pixels, and the ground's window in it."""
    lattice, whole = cube.lattice(epsg), cube.window(epsg)
    left, bottom, right, top = ground.shape.bounds
    west, _, _, north = lattice.bounds(whole)
    for level in range(level_within(cube, epsg, 0) + 1):
        size = lattice.pixel * 2**level
        row, col = int((north - top) // size), int((left - west) // size)
        height, width = -int(-(north - bottom) // size) - row, -int(-(right - west) // size) - col
        if height * width <= _READ:
            break
    return level, PixelWindow(row, col, max(height, 1), max(width, 1))
