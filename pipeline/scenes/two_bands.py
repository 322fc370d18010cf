"""Two scenes that meet inside a chip: low frequencies blended wide, high ones narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.geo import LATTICE_M
from difffusr.pipeline.scenes.scene_window import SceneWindow, spread

#: A cell that no scene shows clear.
NONE = -1

#: Standard deviation of the Gaussian that low frequencies pass: weights go from 10 % to 90 % within a kilometre.
SIGMA_M = 400.0

#: A difference that is known at only this share of the Gaussian's weight counts half. It makes one that is known
#: everywhere 1 % too small.
_DOUBT = 0.01

#: Share of a 60 m cell that both scenes must show, for their pixels of 60 m to be compared.
_BOTH_SHOWN = 0.75

Fields = NDArray[np.float64]


def blend_two_bands(
    dn: Mapping[int, NDArray[np.uint16]],
    valid: Mapping[int, NDArray[np.bool_]],
    looks: Sequence[SceneWindow],
    clear: NDArray[np.int8],
) -> None:
    """Take the step out of the borders between the scenes of a chip, in place.

    With x_k a scene's DN and M_k the 60 m cells taken from it, the result is, in each band on its own grid,

        y = Σ_k N_k · (x_k + Σ_j W_j · D_kj),
        D_kj = G * (b · (x_j − x_k)) / (G * b + 0.01 · G * 1),    W_k = G * M_k / Σ_j G * M_j.

    G is a Gaussian of 400 m, b marks the pixels that both scenes show clear: D_kj is the difference of the scenes' low
    frequencies, and goes to zero where they have too little in common to know it. W, the wide weights, are the same for
    all bands; as W_A + W_B = 1, both sides of a border come to W_A·A + W_B·B in the low frequencies. N_k, the narrow
    weights, are M_k spread by one pixel, with a quarter of its weight, to where the scene is clear as well: high
    frequencies change within two pixels, so that nothing is seen twice. D and W are computed on the 60 m cells and
    interpolated.

    Cells under cloud stay as they are, and so does a chip whose clear cells are all of one scene.

    Args:
        dn, valid: by native GSD as in `Chip`, each cell from its scene; `dn` is changed.
        looks: the scenes, best first.
        clear: (cells, cells) rank of the scene that a clear cell is from, `NONE` for others.
    """
    ranks = [int(rank) for rank in np.unique(clear) if rank != NONE]
    if len(ranks) < 2:
        return
    low = _gaussian(len(clear))
    wide = {rank: low @ (clear == rank) @ low.T for rank in ranks}
    total = sum(wide.values())
    for gsd in GROUPS:
        shown = {rank: _shown(looks[rank], gsd) for rank in ranks}
        fields = {rank: np.zeros((len(dn[gsd]), *clear.shape)) for rank in ranks}
        for k, j in combinations(ranks, 2):
            difference = _difference(looks[k].dn[gsd], looks[j].dn[gsd], shown[k] & shown[j], low)
            fields[k] += wide[j] / total * difference
            fields[j] -= wide[k] / total * difference
        _apply(dn[gsd], valid[gsd], looks, clear, shown, fields)


def _gaussian(cells: int) -> Fields:
    """(cells, cells): each row the Gaussian around a cell; applied to rows and columns it is the one of two axes."""
    apart = np.subtract.outer(np.arange(cells), np.arange(cells)) * LATTICE_M / SIGMA_M
    gaussian: Fields = np.exp(-0.5 * apart**2)
    return gaussian


def _shown(look: SceneWindow, gsd: int) -> NDArray[np.bool_]:
    """(n, n) pixels of a grid that show the ground."""
    if gsd == 10:
        return look.ground
    share = _cells(look.ground[None].astype(np.float64), gsd // 10)[0] / (gsd // 10) ** 2
    shown: NDArray[np.bool_] = share >= (_BOTH_SHOWN if gsd == LATTICE_M else 1)
    return shown & look.valid[gsd]


def _difference(one: NDArray[np.uint16], other: NDArray[np.uint16], both: NDArray[np.bool_], low: Fields) -> Fields:
    """(C, cells, cells) low frequencies of other − one, where both are known; 0 far from there."""
    side = both.shape[0] // len(low)
    apart = np.where(both, other.astype(np.float64) - one, 0.0)
    known = _cells(both[None].astype(np.float64), side)
    ones = np.full_like(known, side**2)
    smooth: Fields = low @ _cells(apart, side) @ low.T
    return smooth / (low @ known @ low.T + _DOUBT * (low @ ones @ low.T))


def _apply(
    dn: NDArray[np.uint16],
    valid: NDArray[np.bool_],
    looks: Sequence[SceneWindow],
    clear: NDArray[np.int8],
    shown: Mapping[int, NDArray[np.bool_]],
    fields: Mapping[int, Fields],
) -> None:
    """Blend one grid's bands in place."""
    gsd = LATTICE_M * len(clear) // valid.shape[0]
    side = LATTICE_M // gsd
    up = _interpolation(len(clear), side)
    weight, total = np.zeros(valid.shape), np.zeros(dn.shape)
    for rank, field in fields.items():
        own = spread(clear == rank, side)
        narrow = _feathered(own) * (own | shown[rank])
        total += narrow * (looks[rank].dn[gsd] + up @ field @ up.T)
        weight += narrow
    blended = np.clip(np.rint(total / np.maximum(weight, 0.1)), 1, 65534)
    here = valid & spread(clear != NONE, side)
    dn[...] = np.where(here, blended, dn)


def _feathered(mask: NDArray[np.bool_]) -> Fields:
    """A mask spread by one pixel, along rows and columns with weights ¼ ½ ¼."""
    padded = np.pad(mask, 1, mode="edge").astype(np.float64)
    rows = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return 0.25 * rows[:, :-2] + 0.5 * rows[:, 1:-1] + 0.25 * rows[:, 2:]


def _interpolation(cells: int, side: int) -> Fields:
    """(cells · side, cells): linear between the cells' centres, at the edge the first and the last cell."""
    at = np.clip((np.arange(cells * side) + 0.5) / side - 0.5, 0, cells - 1)
    weights: Fields = np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(cells)))
    return weights


def _cells(values: Fields, side: int) -> Fields:
    """(C, n, n) summed over blocks of side × side."""
    bands, n = values.shape[0], values.shape[-1] // side
    return values.reshape(bands, n, side, n, side).sum(axis=(2, 4))
