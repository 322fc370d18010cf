"""Every chip is under the pixels where it lies."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_plans import EQUATOR, FIJI, GRID, TWO_ZONES, plan
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.plan.pictures.frame import Frame
from difffusr.pipeline.plan.pictures.rasterise import rasterise_chips


@pytest.mark.parametrize("area", [TWO_ZONES, FIJI, EQUATOR], ids=["two zones", "across 180°", "both hemispheres"])
def test_every_chip_lies_where_its_middle_is(area: BaseGeometry) -> None:
    chips = plan(area).chips
    frame = Frame.around(chips, GRID, area, 900, (400, 1200))
    seen = rasterise_chips(chips, GRID, frame)
    cores = GRID.chip_cores_m(chips.epsg, chips.row.astype(np.int64), chips.col.astype(np.int64))
    agree = []
    for i, epsg in enumerate(chips.epsg.tolist()):
        to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
        lon, lat = to_degrees.transform((cores[i, 0] + cores[i, 2]) / 2, (cores[i, 1] + cores[i, 3]) / 2)
        x, y = frame.pixels(np.array(lon), np.array(lat))
        assert 0 <= x < frame.width
        assert 0 <= y < frame.height
        there = seen[int(y), int(x)]
        # Where a chip's middle lies in the other zone, that zone's chip is shown.
        agree.append(there == i or (there >= 0 and chips.epsg[there] != epsg))
    assert all(agree)
