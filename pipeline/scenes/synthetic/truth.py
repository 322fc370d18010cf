"""The truth of the generated world: its pixels at 2.5 m on each date."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.palette import DATES, Float


@dataclass(frozen=True)
class World:
    """The truth: what a perfect sensor of 2.5 m would see.

    reflectance, later: (12, H, W) float32 surface reflectance in `BANDS` order on the two dates, H and W multiples
    of 24. landcover: (H, W) uint8, codes of `LANDCOVER`. transform: pixel (column, row) to UTM metres of `epsg`.
    """

    reflectance: Float
    later: Float
    landcover: NDArray[np.uint8]
    transform: Affine
    epsg: int
    seed: int

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north in UTM metres."""
        height, width = self.landcover.shape
        left, top = self.transform.c, self.transform.f
        return left, top - height * TARGET_GSD_M, left + width * TARGET_GSD_M, top

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        west, south, east, north = transform_bounds(f"EPSG:{self.epsg}", "EPSG:4326", *self.bounds_m)
        return west, south, east, north

    def on(self, date: str) -> Float:
        """The truth on one of `DATES`, (12, H, W) float32 reflectance."""
        return (self.reflectance, self.later)[[day for day, _ in DATES].index(date)]
