"""A small picture of what a zone shows in a period, in true colour."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difffusr.kernels.bands import band_indices
from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import PixelWindow
from difffusr.pipeline.readers.footprints import Ground, level_within

#: Longest side in pixels, and pixels that are read for it at most.
_SIDE_PX, _READ = 320, 640 * 640

#: Shares of values that are drawn black and white, and how many times brighter the middle is drawn.
_CLIPPED, _GAMMA = (1.0, 99.0), 1 / 1.4

_RED_GREEN_BLUE = ("B04", "B03", "B02")


def thumbnail(cube: Cube, epsg: int, step: int, ground: Ground) -> bytes:
    """A PNG of the ground, transparent where there is no data. Red, green and blue have one range: a range of their own
    would take away what is coloured, and colour what is grey.

    Raises:
        StoreError: the cube cannot be read.
    """
    level, window = _seen(cube, epsg, ground)
    array = cube.array(epsg, "reflectance", level)
    whole = PixelWindow(0, 0, *array.shape[-2:])
    found = read_window(array, step, window, whole)[band_indices(list(_RED_GREEN_BLUE))]
    picture = Image.fromarray(coloured(found), "RGBA")
    picture.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def coloured(dn: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(h, w, 4) red, green, blue and opacity of (3, h, w) DN."""
    valid = (dn > 0).all(axis=0)
    shown = np.zeros((*dn.shape[1:], 4), np.uint8)
    if not valid.any():
        return shown
    low, high = np.percentile(dn[:, valid], _CLIPPED)
    part = np.clip((dn.astype(np.float32) - low) / max(high - low, 1.0), 0, 1) ** _GAMMA
    shown[..., :3] = np.where(valid, np.rint(part * 255), 0).astype(np.uint8).transpose(1, 2, 0)
    shown[..., 3] = valid * np.uint8(255)
    return shown


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
