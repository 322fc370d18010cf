"""Images whose clouds and shadows people have drawn, and how well a mask fits them.

`alberta`: four dates of 22 × 22 km at 31 m with SCL, Sen2Cor's cloud probability (CLD), s2cloudless's (CLP) and
hand-drawn shadows; clouds are not drawn. Its RGB is stretched (2.5 × 255 × reflectance) and clipped at a reflectance of
0.4, so clouds are duller there than they were; it has no short-wave infrared. `cloud_mask_512`: one image of six bands
with labels of cloud and shadow, but without SCL; neither the size of its pixels nor its level is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from beside import SHARED
from numpy.typing import NDArray

FOLDER = SHARED / "data" / "balance"
ALBERTA, LABELLED = FOLDER / "alberta", FOLDER / "cloud_mask_512" / "sentinel2.npz"

#: Metres of a pixel of `alberta`.
ALBERTA_M = 31.0

#: Bands of the labelled image as the network calls them.
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Day:
    """One date of `alberta`: reflectance by band, SCL, cloud probabilities in per cent, drawn shadows; (h, w) each."""

    name: str
    image: Mapping[str, NDArray[np.float32]]
    scl: NDArray[np.uint8]
    cld: NDArray[np.uint8]
    clp: NDArray[np.float64]
    shadow: Bools


@cache
def alberta() -> tuple[Day, ...]:
    """All dates of `alberta`."""
    return tuple(_day(folder) for folder in sorted(ALBERTA.iterdir()))


def _day(folder: Path) -> Day:
    def read(name: str) -> NDArray[np.generic]:
        with rasterio.open(folder / f"{name}.tif") as file:
            pixels: NDArray[np.generic] = file.read()
        return pixels

    red, green, blue = (band.astype(np.float32) / np.float32(2.5 * 255) for band in read("RGB"))
    nir = (read("B08")[0] / 65535).astype(np.float32)
    drawn = read("shadowBaseline")
    shadow = (drawn[0] == 0) & (drawn[1] == 255) & (drawn[2] == 0) & (drawn[3] > 0)
    image = {"blue": blue, "green": green, "red": red, "nir": nir}
    return Day(folder.name, image, read("SCL")[0], read("CLD")[0], read("CLP")[0] / 2.55, shadow)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labelled image: reflectance by band, cloud and shadow; (512, 512) each."""

    image: Mapping[str, NDArray[np.float32]]
    cloud: Bools
    shadow: Bools


@cache
def labelled() -> Labelled:
    """The image of `cloud_mask_512`."""
    with np.load(LABELLED) as file:
        image, labels = file["img"], file["msk"][..., 0]
    return Labelled({name: image[..., n] for n, name in enumerate(BANDS)}, labels == 4, labels == 0)


def coarser(image: Mapping[str, NDArray[np.float32]], factor: int) -> dict[str, NDArray[np.float32]]:
    """An image in means of so many pixels a side; what is over at its edges is cut off."""

    def mean(band: NDArray[np.float32]) -> NDArray[np.float32]:
        rows, cols = (side // factor for side in band.shape)
        blocks = band[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor)
        means: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
        return means

    return {name: mean(band) for name, band in image.items()}


def finer(classes: NDArray[np.uint8], factor: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Classes of `coarser` on the grid that it came from; 0 at the edges that were cut off."""
    out = np.zeros(shape, np.uint8)
    spread = classes.repeat(factor, axis=0).repeat(factor, axis=1)
    out[: spread.shape[0], : spread.shape[1]] = spread
    return out


@dataclass(frozen=True)
class Counts:
    """Pixels of a class that are right, that were found, and that there are. Counts of several images add up."""

    right: int
    found: int
    there: int

    @classmethod
    def of(cls, found: Bools, there: Bools) -> Counts:
        return cls(int((found & there).sum()), int(found.sum()), int(there.sum()))

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.right + other.right, self.found + other.found, self.there + other.there)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / max(self.found + self.there, 1)
