"""Two scenes that meet inside a chip: low frequencies blended wide, high ones narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

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

#: Steps to the median of the differences around, and DN below which two are equal.
_MEDIAN_STEPS, _EQUAL_DN = 8, 10.0

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
        D_kj = c · G * (r · b · (x_j − x_k)) / G * (r · b),    W_k = G * M_k / Σ_j G * M_j.

    G is a Gaussian of 400 m, b marks the pixels that both scenes show clear: D_kj is the difference of the scenes' low
    frequencies. r = 1 / |x_j − x_k − D_kj| makes it a median: what has changed in less than half of the ground around,
    as harvested fields, is no light, and stays. c = G * b / (G * b + 0.01 · G * 1) lets it go to zero where the scenes
    have too little in common to know it. W, the wide weights, are the same for all bands; as W_A + W_B = 1, both sides
    of a border come to W_A·A + W_B·B in the low frequencies. N_k, the narrow weights, are M_k spread by one pixel, with
    a quarter of its weight, to where the scene is clear as well: high frequencies change within two pixels, so that
    nothing is seen twice. D and W are computed on the 60 m cells and interpolated.

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
    wide = {rank: _smooth(low, clear == rank) for rank in ranks}
    total = sum(wide.values())
    shown = {rank: {gsd: _shown(looks[rank], gsd) for gsd in GROUPS} for rank in ranks}
    fields = {rank: {gsd: np.zeros((len(dn[gsd]), *clear.shape)) for gsd in GROUPS} for rank in ranks}
    for k, j in combinations(ranks, 2):
        for gsd, difference in _differences(looks[k], looks[j], shown[k], shown[j], low).items():
            fields[k][gsd] += wide[j] / total * difference
            fields[j][gsd] -= wide[k] / total * difference
    for gsd in GROUPS:
        at_gsd = {rank: (looks[rank].dn[gsd], shown[rank][gsd], fields[rank][gsd]) for rank in ranks}
        _apply(dn[gsd], valid[gsd], clear, at_gsd)


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


def _differences(
    one: SceneWindow,
    other: SceneWindow,
    shown: Mapping[int, NDArray[np.bool_]],
    other_shown: Mapping[int, NDArray[np.bool_]],
    low: Fields,
) -> dict[int, Fields]:
    """By GSD, (C, cells, cells) low frequencies of other − one, where both are known; 0 far from there."""
    apart, known = [], []
    for gsd in GROUPS:
        both, side = shown[gsd] & other_shown[gsd], LATTICE_M // gsd
        count = _cells(both[None].astype(np.float64), side)
        total = _cells(np.where(both, other.dn[gsd].astype(np.float64) - one.dn[gsd], 0.0), side)
        apart.append(total / np.maximum(count, 1))
        known.append(count[0] / side**2)
    bands, share = np.concatenate(apart), np.minimum.reduce(known)
    if not share.any():
        return {gsd: np.zeros_like(values) for gsd, values in zip(GROUPS, apart, strict=True)}
    weight, difference = share, bands
    for _ in range(_MEDIAN_STEPS):
        difference = _smooth(low, weight * bands) / _smooth(low, weight)
        off = np.sqrt(((bands - difference) ** 2).mean(axis=0))
        weight = share / np.maximum(off, _EQUAL_DN)
    mass = _smooth(low, share)
    difference = difference * (mass / (mass + _DOUBT * _smooth(low, np.ones_like(share))))
    ends = np.cumsum([len(values) for values in apart])[:-1]
    return dict(zip(GROUPS, np.split(difference, ends), strict=True))


def _apply(
    dn: NDArray[np.uint16],
    valid: NDArray[np.bool_],
    clear: NDArray[np.int8],
    scenes: Mapping[int, tuple[NDArray[np.uint16], NDArray[np.bool_], Fields]],
) -> None:
    """Blend one grid's bands in place; `scenes`: by rank DN, pixels shown, and what to add."""
    side = valid.shape[0] // len(clear)
    up = _interpolation(len(clear), side)
    weight, total = np.zeros(valid.shape), np.zeros(dn.shape)
    for rank, (own_dn, shown, field) in scenes.items():
        own = spread(clear == rank, side)
        narrow = _feathered(own) * (own | shown)
        total += narrow * (own_dn + up @ field @ up.T)
        weight += narrow
    blended = np.clip(np.rint(total / np.maximum(weight, 0.1)), 1, 65534)
    here = valid & spread(clear != NONE, side)
    dn[...] = np.where(here, blended, dn)


def _smooth(low: Fields, values: NDArray[np.floating[Any] | np.bool_]) -> Fields:
    """(…, cells, cells): values times the Gaussian, summed."""
    smooth: Fields = low @ values @ low.T
    return smooth


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
