"""Several looks of a chip made one: the same weights for all bands, so that pixels stay spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import GROUPS
from difffusr.pipeline.geo import LATTICE_M, PixelWindow
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.scenes.chip_pixels import Chip, empty_chip
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.scenes.scene_window import SceneWindow, spread

#: (K, n, n) float32: share of each look in each pixel; their sum is 1, or 0 where there is no data.
Weights = NDArray[np.float32]


def compose(window: PixelWindow, looks: Sequence[SceneWindow], passes: Sequence[str], rules: ChipRules) -> Chip:
    """A chip of several looks: their geometric median or medoid on the 20 m grid, over all bands of 10 and 20 m.

    What counts at a pixel of 20 m: the looks that are clear there; if none is, those that are clear in most of its 60 m
    cell, where single pixels may be misclassified; if there is none either, and it is allowed, the one that shows most
    of the cell, cloud and all. Scenes of one pass are one look.

    The weights go to every band's own grid. To 10 m those of a geometric median are interpolated, as 20 m squares would
    show; a medoid's pixels stay measurements. A pixel of 60 m has the mean weights of its nine, of the looks that are
    clear in all of them if there is one; of a medoid that of the greatest. A look has at most twice its weight of a
    pixel of 20 m in the four below: where it is masked or far from the others, its neighbours give it none.

    `source` is the scene with the largest weight. `quality` is `CLEAR` with one clear look or more, else `CLOUDY`;
    nothing is `FILLED`, as no scene comes first. `looks` counts the clear looks.

    Args:
        looks: best first.
        passes: of each look, what names its pass of a satellite.
    """
    chip = empty_chip(window)
    if not looks:
        return replace(chip, looks=np.zeros_like(chip.quality))
    shown = _once_a_pass([_some(look.ground) for look in looks], passes)
    present = np.stack([_some(look.data) for look in looks])
    seen = shown.sum(axis=0, dtype=np.uint8)
    in_cell = np.stack([spread(look.clear, 3) for look in looks]) & present
    counts = np.where(seen > 0, shown, in_cell)
    weights = _weights(looks, counts, rules)
    if rules.allow_cloudy:
        fullest = np.stack([_repeated(look.count, 3) for look in looks]) * present
        first = np.argmax(fullest, axis=0) == np.arange(len(looks))[:, None, None]
        filled = first & (fullest > 0) & ~counts.any(axis=0)
        counts, weights = counts | filled, weights + filled
    medoid = rules.composite == "medoid"
    by_gsd = {10: _at_10_m(weights, medoid), 20: weights, 60: _at_60_m(weights, counts, medoid)}
    for gsd in GROUPS:
        share = _normalised(by_gsd[gsd] * np.stack([look.valid[gsd] for look in looks]))
        chip.valid[gsd][...] = share.any(axis=0)
        chip.dn[gsd][...] = _mixed([look.dn[gsd] for look in looks], share)
        if gsd == 10:
            chip.source[...] = (share.argmax(axis=0) + 1) * chip.valid[10]
    first = weights.argmax(axis=0)
    chip.scl[...] = np.choose(first, [look.scl for look in looks]) * chip.valid[20]
    observed = _repeated(seen, 2) * chip.valid[10]
    chip.quality[...] = np.where(observed > 0, Quality.CLEAR, Quality.CLOUDY) * chip.valid[10]
    return replace(chip, looks=observed)


def _once_a_pass(shown: Sequence[NDArray[np.bool_]], passes: Sequence[str]) -> NDArray[np.bool_]:
    """(K, n, n): what each look shows, less what one before of the same pass does."""
    kept = np.stack(shown)
    for number, name in enumerate(passes):
        for before in range(number):
            if passes[before] == name:
                kept[number] &= ~kept[before]
    return kept


def _weights(looks: Sequence[SceneWindow], counts: NDArray[np.bool_], rules: ChipRules) -> Weights:
    """(K, n, n) on the 20 m grid, 0 where no look counts."""
    if len(looks) == 1:
        return counts.astype(np.float32)
    import torch  # readers of single scenes do without

    from difffusr.kernels.images import geomedian_weights, medoid_weights

    make = medoid_weights if rules.composite == "medoid" else geomedian_weights
    spectra = np.stack([np.concatenate([_mean_of_valid(look), look.dn[20]]) for look in looks])
    weights: Weights = make(torch.from_numpy(spectra), torch.from_numpy(counts)).numpy()
    return weights


def _mean_of_valid(look: SceneWindow) -> NDArray[np.float32]:
    """(C, n, n) the bands of 10 m on the 20 m grid, mean of the pixels with data."""
    total, valid = _sum_2x(look.dn[10].astype(np.float32)), _sum_2x(look.valid[10].astype(np.float32))
    return np.divide(total, np.maximum(valid, 1), dtype=np.float32)


def _at_10_m(weights: Weights, medoid: bool) -> Weights:
    """Weights of 20 m on the 10 m grid."""
    own = _repeated(weights, 2)
    if medoid:
        return own
    larger = _interpolated(_interpolated(weights).swapaxes(1, 2)).swapaxes(1, 2)
    return np.minimum(larger, 2 * own)


def _at_60_m(weights: Weights, counts: NDArray[np.bool_], medoid: bool) -> Weights:
    """Weights of 20 m on the 60 m grid."""
    side = LATTICE_M // 20
    blocks = len(weights), weights.shape[1] // side, side, weights.shape[2] // side, side
    mean = weights.reshape(blocks).mean(axis=(2, 4))
    throughout = mean * counts.reshape(blocks).all(axis=(2, 4))
    mean = np.where(throughout.any(axis=0), throughout, mean)
    if not medoid:
        return mean
    greatest = mean.argmax(axis=0) == np.arange(len(mean))[:, None, None]
    return (greatest & (mean > 0)).astype(np.float32)


def _interpolated(weights: Weights) -> Weights:
    """(K, n, m) → (K, 2n, m): between the rows' centres, at the edge the first and the last row."""
    before = np.concatenate([weights[:, :1], weights[:, :-1]], axis=1)
    after = np.concatenate([weights[:, 1:], weights[:, -1:]], axis=1)
    halves = np.stack([0.75 * weights + 0.25 * before, 0.75 * weights + 0.25 * after], axis=2)
    out: Weights = halves.reshape(len(weights), -1, weights.shape[2]).astype(np.float32, copy=False)
    return out


def _normalised(weights: Weights) -> Weights:
    total = weights.sum(axis=0)
    return np.divide(weights, np.where(total > 0, total, 1), dtype=np.float32)


def _mixed(dn: Sequence[NDArray[np.uint16]], weights: Weights) -> NDArray[np.uint16]:
    """Σ w·DN, rounded: (C, n, n)."""
    total = np.zeros(dn[0].shape, np.float32)
    for values, share in zip(dn, weights, strict=True):
        if share.any():
            total += values * share
    return np.rint(total).astype(np.uint16)


def _repeated(values: NDArray[Any], factor: int) -> NDArray[Any]:
    """Each pixel factor × factor times."""
    return values.repeat(factor, axis=-2).repeat(factor, axis=-1)


def _sum_2x(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of 2 × 2."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _some(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask of 10 m at 20 m: where any of four pixels is set."""
    rows = mask[::2] | mask[1::2]
    return rows[:, ::2] | rows[:, 1::2]
