"""What numbers in pixels mean: DN, standard deviations, classes of the scene classification, quality flags."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: DN or classes as a file stores them: uint16 or uint8.
Pixels = NDArray[np.unsignedinteger[Any]]


#: Classes of the scene classification (Sen2Cor) that show the ground: dark features, vegetation, bare soil, water,
#: unclassified, snow or ice. The rest are no data, saturated, cloud shadow and clouds.
CLEAR_CLASSES = (2, 4, 5, 6, 7, 11)


#: Open water; and clouds of medium and high probability, and thin cirrus.
WATER_CLASSES, CLOUD_CLASSES = (6,), (8, 9, 10)


def is_clear(classes: Pixels) -> NDArray[np.bool_]:
    """Which pixels of a scene classification show the ground: any shape, bool."""
    clear = np.zeros(256, bool)
    clear[list(CLEAR_CLASSES)] = True
    return clear.take(classes, mode="clip")  # some ten times as fast as np.isin; the last entry is no class


class Quality(IntEnum):
    """What a pixel of the cube is made of (`quality` variable, CF flag values).

    The last two are of chips that were enlarged bicubically (`skip` in the configuration), of the ground and of cloud.
    """

    NO_DATA = 0
    CLEAR = 1
    FILLED = 2
    CLOUDY = 3
    FAILED = 4
    INTERPOLATED = 5
    INTERPOLATED_CLOUD = 6


#: DN per unit of reflectance in the cube.
DN_SCALE = 10_000


#: Whole numbers per unit of reflectance of a standard deviation, and the one that stands for "none": 0 is a deviation.
#: Greater ones than fit below it are told as the greatest that does.
STD_SCALE, STD_FILL = 100_000, 65_535
