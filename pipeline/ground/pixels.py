"""What pixel values mean: DN, standard deviations, classes of the scene classification, quality flags."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: DN or classes as a file stores them: uint16 or uint8.
Pixels = NDArray[np.unsignedinteger[Any]]

#: The DN that stands for no measurement, whatever else is known: ESA's "saturated", and what `scenes` reads outside a
#: file and where a file has its own nodata value.
UNMEASURED = 65_535

#: Classes of the scene classification (Sen2Cor) that show the ground: dark features, vegetation, bare soil, water,
#: unclassified, snow or ice. The rest are no data, saturated, cloud shadow and clouds.
CLEAR_CLASSES = (2, 4, 5, 6, 7, 11)

#: Open water; clouds of medium and high probability, thin cirrus.
WATER_CLASSES, CLOUD_CLASSES = (6,), (8, 9, 10)


class Quality(IntEnum):
    """Where a pixel of the cube comes from (`quality` variable, CF flag values).

    The last two are for chips enlarged bicubically (`skip` in the configuration): ground, and cloud.
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

#: Integer steps per unit of reflectance of a standard deviation, and the value for "none" (0 is a valid deviation).
#: Larger values are clipped to 65 534.
STD_SCALE, STD_FILL = 100_000, 65_535
