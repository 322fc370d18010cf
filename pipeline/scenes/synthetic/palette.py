"""Spectra, crops, light and sensor of the generated world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

#: Where the world lies: UTM 32 N, both corners on the 60 m lattice. In steps of 1680 m (a chip's stride) the corner
#: is at column 297 + 600 m and row -3149 + 360 m, so that 2 rows × 3 columns of chips cover the world.
EPSG: Final = 32632
LEFT_M: Final = 499_560
TOP_M: Final = 5_289_960

#: Height and width.
SIZE_M: Final = (2880, 3660)

SEED: Final = 7

#: The two acquisitions, 35 days apart on one orbit: ISO date, platform letter.
DATES: Final = (("2023-06-05", "A"), ("2023-07-10", "B"))

#: First and last day to ask for, both included.
PERIOD: Final = ("2023-06-01", "2023-07-31")

#: Tile name and the part of the world's width it holds, in 60 m columns of 61: the two overlap by 1020 m.
TILES: Final = (("32TMT", 0, 39), ("32TNT", 22, 61))

LANDCOVER: Final[dict[int, str]] = {
    1: "crop", 2: "bare soil", 3: "grassland", 4: "forest", 5: "garden", 6: "water", 7: "road", 8: "track",
    9: "building",
}  # fmt: skip

CODE: Final = {name: code for code, name in LANDCOVER.items()}

#: Asset name of each band in Earth Search v1.
ASSETS: Final[dict[str, str]] = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip

#: Surface reflectance in BANDS order, per mille.
SPECTRA: Final[dict[str, tuple[int, ...]]] = {
    "loam": (58, 76, 108, 138, 164, 190, 205, 218, 238, 252, 315, 262),
    "wheat": (24, 31, 60, 38, 98, 295, 385, 400, 418, 424, 190, 92),
    "ripe wheat": (58, 76, 128, 156, 196, 252, 282, 300, 322, 332, 330, 214),
    "stubble": (70, 92, 138, 170, 204, 240, 258, 274, 294, 302, 365, 262),
    "rape": (26, 36, 84, 52, 124, 320, 392, 412, 424, 428, 208, 104),
    "ripe rape": (50, 66, 104, 118, 160, 232, 268, 284, 306, 312, 268, 160),
    "maize": (22, 28, 64, 31, 104, 338, 446, 460, 476, 470, 204, 92),
    "beet": (22, 30, 78, 34, 118, 400, 520, 530, 548, 540, 226, 104),
    "meadow": (28, 38, 78, 48, 124, 300, 368, 384, 404, 410, 222, 110),
    "mown": (42, 58, 100, 92, 158, 262, 300, 316, 338, 344, 276, 166),
    "lawn": (32, 43, 80, 58, 124, 270, 326, 342, 360, 366, 230, 122),
    "conifer": (15, 20, 33, 22, 54, 150, 184, 190, 204, 210, 96, 44),
    "broadleaf": (19, 24, 52, 28, 84, 285, 378, 386, 404, 404, 172, 74),
    "forest floor": (18, 24, 36, 32, 56, 130, 156, 162, 172, 176, 130, 76),
    "river": (36, 40, 50, 34, 30, 24, 23, 19, 17, 16, 8, 5),
    "lake": (22, 24, 29, 15, 13, 11, 11, 9, 8, 8, 4, 3),
    "gravel": (102, 130, 166, 192, 210, 224, 236, 250, 264, 268, 320, 280),
    "asphalt": (78, 92, 106, 114, 120, 126, 131, 136, 141, 145, 168, 152),
    "paved": (108, 132, 152, 164, 172, 180, 186, 194, 200, 204, 226, 206),
    "red roof": (62, 74, 94, 150, 180, 198, 228, 242, 252, 256, 292, 252),
    "brown roof": (54, 66, 84, 114, 130, 142, 152, 164, 174, 180, 214, 186),
    "grey roof": (104, 124, 138, 146, 152, 158, 162, 168, 172, 176, 196, 182),
    "slate roof": (54, 64, 68, 70, 72, 75, 78, 82, 86, 90, 104, 98),
    "white roof": (280, 330, 356, 368, 376, 386, 392, 398, 400, 402, 400, 372),
    "cloud": (430, 425, 415, 415, 430, 445, 455, 460, 468, 520, 350, 280),
}

#: What is left of the light in a cast shadow (sky light and neighbours), by band.
SKYLIGHT: Final = np.array([0.46, 0.42, 0.37, 0.33, 0.33, 0.38, 0.40, 0.40, 0.40, 0.38, 0.26, 0.22], np.float32)

#: A field's own colour: senescence (yellower) and dryness, as exponents by band.
SENESCENCE: Final = np.array([1, 1, 0.9, 1.6, 0.8, -0.2, -0.5, -0.5, -0.5, -0.5, 0.6, 1], np.float32)
DRYNESS: Final = np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0, -0.1, -0.1, -0.1, -0.2, 1, 1.4], np.float32)

#: Second date against the first: atmosphere and angles not quite the same.
LATER_GAIN: Final = np.array([1.05, 1.04, 1.03, 1.03, 1.03, 1.02, 1.02, 1.02, 1.02, 1.0, 1.02, 1.03], np.float32)
SUN_AZIMUTH_DEG: Final = 150.0
SUN_ELEVATION_DEG: Final = 61.0
SUPERSAMPLING: Final = 3

#: Both dates; what differs is whether the host has removed the offset that this baseline adds.
BASELINE: Final = "05.09"
OFFSET_DN: Final = 1000


@dataclass(frozen=True)
class _Crop:
    """What grows on a parcel: (spectrum, cover 0 – 1) on each date, how often, whether machines leave tramlines."""

    share: float
    first: tuple[str, float]
    later: tuple[str, float]
    tramlines: bool
    landcover: str = "crop"


CROPS: Final = (
    _Crop(0.24, ("wheat", 0.92), ("ripe wheat", 0.92), True),
    _Crop(0.10, ("ripe wheat", 0.55), ("stubble", 0.80), True),
    _Crop(0.10, ("rape", 0.96), ("ripe rape", 0.94), True),
    _Crop(0.17, ("maize", 0.24), ("maize", 0.93), False),
    _Crop(0.07, ("beet", 0.50), ("beet", 0.92), False),
    _Crop(0.13, ("meadow", 0.97), ("mown", 0.92), False, "grassland"),
    _Crop(0.11, ("mown", 0.90), ("meadow", 0.96), False, "grassland"),
    _Crop(0.08, ("lawn", 0.04), ("lawn", 0.18), False, "bare soil"),
)
