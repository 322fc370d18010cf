"""Whether a scene's pixels contradict what its item says of their radiometric offset."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.pixels import UNMEASURED
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.radiometry import by_flag
from difffusr.pipeline.scenes.windows import read_overview

#: What ESA adds to the DN from baseline 04.00 on.
_OFFSET: Final = 1000

#: Share of green pixels that may come out below zero: a few do, over dark water and in shadow.
_BELOW_ZERO: Final = 0.2

#: Where the offset is still in the DN, the darkest hundredth of blue and of SWIR lie in this range: not below the
#: offset, and not far above. Over ground whose darkest pixels are brighter than that nothing can be said.
_DARKEST: Final = 0.01
_DARK: Final = range(_OFFSET, 1500)

#: Pixels below which nothing can be said.
_FEW: Final = 100


def doubt_of_offset(scene: Scene, clear: NDArray[np.bool_], step_m: int) -> str:
    """What speaks against the offset that a scene's item states, "" for nothing.

    Only scenes are looked at for which the item's flag alone tells, in one or two small reads.

    Args:
        clear: (h, w) pixels at `step_m` that show the ground.
    """
    asset = scene.assets.get("B03")
    if asset is None or int(scene.baseline[:2]) < 4 or not by_flag(scene.collection, asset.driver, asset.href):
        return ""
    try:
        if asset.offset_dn:
            green = _shown(scene, "B03", clear, step_m)
            low = float(np.mean(green < _OFFSET)) if green.size >= _FEW else 0.0
            return f"{low:.0%} would be below 0 in B03, is the offset removed already?" if low > _BELOW_ZERO else ""
        return "nothing is below 0.10 in B02 and B12, is the offset still in?" if _lifted(scene, clear, step_m) else ""
    except (ReadError, KeyError):
        return ""  # whoever reads the band for a chip says so


def _lifted(scene: Scene, clear: NDArray[np.bool_], step_m: int) -> bool:
    """Whether even the darkest pixels lie above the offset, and just above it."""
    floors = []
    for band in ("B02", "B12"):
        dn = _shown(scene, band, clear, step_m)
        if dn.size < _FEW or (floor := int(np.quantile(dn, _DARKEST))) < _OFFSET:
            return False
        floors.append(floor)
    return min(floors) in _DARK


def _shown(scene: Scene, band: str, clear: NDArray[np.bool_], step_m: int) -> NDArray[np.unsignedinteger[Any]]:
    """(n,) DN of the pixels that show the ground, as stored."""
    dn, _, _ = read_overview(scene, band, step_m)
    seen = (dn > 0) & (dn < UNMEASURED)
    return dn[seen & clear] if clear.shape == dn.shape else dn[seen]
