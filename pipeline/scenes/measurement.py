"""Which pixels of a scene are measurements.

========================================== =================================== ========================================
in the band's file                         the scene classification (SCL) says the pixel is
========================================== =================================== ========================================
any DN                                     0, no data                          no data, in every band
outside the file, or a nodata value that   anything                            no data
its file names (unless that is 0)
65535, saturated                           anything                            no data
0                                          2 … 11, and another band has DN > 1 a reflectance ≤ 0: DN 1, the least stored
0                                          otherwise, or there is none         no data
0 or 1 within 60 m of no data              anything                            no data: a swath's edge
1 where no band has more                   anything                            no data
1 … 65534 otherwise                        1 … 11, or there is none            a measurement
========================================== =================================== ========================================

DN 0 is ESA's "no data", but it is also what processors write for dark water and shadow: Sen2Cor before baseline 04.00,
and converters that take the offset out of the DN. A pixel of 60 m has the class of most of its nine pixels of 20 m.
Saturated pixels (ESA's 65535) have no known reflectance, and neither have pixels of 1 at a swath's edge, where only
some of the bands look. Whether a measurement shows the ground is another question: `scenes.masks`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from difffusr.pipeline.ground.pixels import UNMEASURED

#: Classes of the scene classification that say that something was measured: all but no data and defective.
_FIRST_CLASS, _LAST_CLASS = 2, 11

#: How far the edge of a swath reaches, in pixels of 20 m.
_EDGE_PX = 3


def measured(
    raw: Mapping[int, NDArray[np.uint16]], scl: NDArray[np.uint16] | None
) -> tuple[dict[int, NDArray[np.uint16]], dict[int, NDArray[np.bool_]]]:
    """Tell the measurements of a scene from what is none.

    Args:
        raw: by native GSD in metres (10, 20, 60), (C, n, n) DN as in the files, `UNMEASURED` as above.
        scl: (n, n) classes at 20 m, `UNMEASURED` outside the file; None where the scene has no classification.

    Returns:
        by GSD, (C, n, n) uint16 DN, 1 for a reflectance ≤ 0, and 0 in all bands of a group where one of them has no
        data; and (n, n) bool, where there is data.
    """
    if _all_measured(raw, scl):
        return dict(raw), {gsd: np.ones(dn.shape[1:], bool) for gsd, dn in raw.items()}
    lit = _any_of(raw)
    looked = scl != UNMEASURED if scl is not None else ~_outside(raw)
    said = np.where(looked, scl, 0) if scl is not None else None
    nothing = looked & ~lit if said is None else looked & (~lit | (said == 0))
    edge = _grown(nothing, _EDGE_PX)
    ground = None if said is None else lit & ~edge & (said >= _FIRST_CLASS) & (said <= _LAST_CLASS)
    none = ~lit if said is None else ~lit | (said == 0)
    dn, valid = {}, {}
    for gsd, stored in raw.items():
        missing = stored == UNMEASURED
        dark = stored == 0
        if ground is not None:
            missing |= dark & ~_most(ground, gsd)
            stored = np.where(dark, np.uint16(1), stored)
        else:
            missing |= dark
        missing |= (stored <= 1) & _some(edge, gsd)
        valid[gsd] = ~(missing.any(axis=0) | _most(none, gsd))
        dn[gsd] = stored * valid[gsd]
    return dn, valid


def _all_measured(raw: Mapping[int, NDArray[np.uint16]], scl: NDArray[np.uint16] | None) -> bool:
    """The usual case: every pixel of every band is a measurement."""
    plain = all(dn.min() > 1 and dn.max() < UNMEASURED for dn in raw.values())
    return plain and (scl is None or bool(scl.min() > 0 and scl.max() < UNMEASURED))


def _any_of(raw: Mapping[int, NDArray[np.uint16]]) -> NDArray[np.bool_]:
    """(n, n) bool at 20 m: where any band holds more than DN 1."""
    lit = {gsd: np.any((dn > 1) & (dn < UNMEASURED), axis=0) for gsd, dn in raw.items()}
    return np.any(_blocks(lit[10], 2), axis=2) | lit[20] | lit[60].repeat(3, axis=0).repeat(3, axis=1)


def _outside(raw: Mapping[int, NDArray[np.uint16]]) -> NDArray[np.bool_]:
    """(n, n) bool at 20 m: where no band of 20 m was measured."""
    outside: NDArray[np.bool_] = np.all(raw[20] == UNMEASURED, axis=0)
    return outside


def _most(mask: NDArray[np.bool_], gsd: int) -> NDArray[np.bool_]:
    """A mask of 20 m on another grid: at 60 m, where most of nine pixels are set."""
    if gsd == 60:
        most: NDArray[np.bool_] = _blocks(mask, 3).sum(axis=2) > 4
        return most
    return mask if gsd == 20 else mask.repeat(2, axis=0).repeat(2, axis=1)


def _some(mask: NDArray[np.bool_], gsd: int) -> NDArray[np.bool_]:
    """As `_most`; at 60 m, where any of nine pixels is set."""
    if gsd == 60:
        some: NDArray[np.bool_] = np.any(_blocks(mask, 3), axis=2)
        return some
    return _most(mask, gsd)


def _grown(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """A mask grown by so many pixels in every direction, diagonals too."""
    if not mask.any():
        return mask
    for axis in (0, 1):
        padded = np.pad(mask, [(reach, reach) if axis == along else (0, 0) for along in (0, 1)])
        mask = np.any(sliding_window_view(padded, 2 * reach + 1, axis=axis), axis=-1)
    return mask


def _blocks(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """(n, n) as (n / side, n / side, side²): the pixels of each block."""
    cells = mask.shape[0] // side
    return mask.reshape(cells, side, cells, side).swapaxes(1, 2).reshape(cells, cells, side * side)
