"""Gain and offset of every scene and band, from all differences at once.

A scene's balanced DN are gain · DN + offset, the offset bilinear between the corners of the scene: haze and what
atmospheric correction makes of it vary over a granule. Least squares over all differences, with Huber's weights for
parts that do not fit (change on the ground), solved by conjugate gradients for all bands side by side. What the
differences do not say is kept near "nothing": gains near 1, offsets near 0 and flat. Gains average 1, and the offsets
are such that the mean over all scenes that are linked stays where it was: a mosaic must not drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from difffusr.pipeline.plan.balance.pairs import Pairs

#: Standard deviations of what is known without looking: of gains; of offsets, DN; of an offset's change from corner to
#: corner, DN.
_GAIN, _OFFSET, _SLOPE = 0.005, 200.0, 45.0

#: DN by which gains are scaled, so that all unknowns are of a size.
_SCALE = 1000.0

#: Standard deviations beyond which a difference counts less (Huber), and rounds of weighing.
_HUBER, _ROUNDS = 1.5, 6

#: Most steps of conjugate gradients a round, and the relative residual that is enough.
_STEPS, _ENOUGH = 150, 1e-5

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """What each scene is to be changed by.

    Attributes:
        gain: (scenes, bands).
        offset: (scenes, bands, 2, 2) DN at the corners: north-west, north-east; south-west, south-east.
        before, after: (scenes, bands) median absolute difference to other scenes, DN; NaN without any.
        group: (scenes,) scenes of one number are linked by overlaps.
    """

    gain: Array
    offset: Array
    before: Array
    after: Array
    group: NDArray[np.int32]


def corners(place: NDArray[np.floating]) -> Array:
    """(n, 4) weights of the four corners at places (n, 2), 0 – 1 eastwards and southwards."""
    east, south = np.clip(place.astype(np.float64), 0, 1).T
    return np.stack([(1 - east) * (1 - south), east * (1 - south), (1 - east) * south, east * south], axis=1)


def fit(pairs: Pairs, mean: Array, centre: Array) -> Fit:
    """Solve for all scenes and bands.

    Args:
        mean: (scenes, bands) mean DN of each scene's clear points.
        centre: (scenes, 4) mean of `corners` over these points.
    """
    scenes, bands = mean.shape
    group = connected_components(_graph(pairs, scenes), directed=False)[1].astype(np.int32)
    problem = _Problem(pairs, scenes, bands, group)
    weight = 1 / pairs.error.astype(np.float64) ** 2
    solution = np.zeros((5 * scenes, bands))
    robust = np.ones_like(weight)
    for _ in range(_ROUNDS if len(pairs) else 0):
        solution = problem.solve(weight * robust, solution)
        off = np.abs(problem.residual(solution)) / pairs.error
        scale = np.maximum(1.4826 * np.median(off, axis=0), 1.0)
        # Where differences scatter more than their errors say, all of them say less.
        robust = np.minimum(1.0, _HUBER * scale / np.maximum(off, 1e-9)) / scale**2
    gain = 1 + solution[:scenes] / _SCALE
    offset = solution[scenes:].reshape(scenes, 4, bands)
    moved = (gain - 1) * mean + np.einsum("sc,scb->sb", centre, offset)
    size = np.bincount(group)
    drift = np.stack([np.bincount(group, moved[:, band]) / size for band in range(bands)], axis=1)
    offset = offset - drift[group][:, None]
    before, after = (_median_by_scene(pairs, scenes, off) for off in (pairs.difference, problem.residual(solution)))
    return Fit(gain, offset.transpose(0, 2, 1).reshape(scenes, bands, 2, 2), before, after, group)


def _graph(pairs: Pairs, scenes: int) -> sp.coo_matrix:
    return sp.coo_matrix((np.ones(len(pairs)), (pairs.one, pairs.other)), (scenes, scenes))


def _median_by_scene(pairs: Pairs, scenes: int, off: NDArray[np.floating]) -> Array:
    """(scenes, bands) median over the rows that a scene is in, NaN for none."""
    scene = np.concatenate([pairs.one, pairs.other])
    order = np.argsort(scene, kind="stable")
    sizes = np.abs(np.concatenate([off, off]))[order]
    ends = np.searchsorted(scene[order], np.arange(scenes + 1))
    out = np.full((scenes, off.shape[1]), np.nan)
    for number in range(scenes):
        if ends[number] < ends[number + 1]:
            out[number] = np.median(sizes[ends[number] : ends[number + 1]], axis=0)
    return out


class _Problem:
    """The normal equations of all bands, never formed: unknowns are (5 · scenes, bands), first the gains less 1 in
    thousandths, then the offsets at each scene's four corners."""

    def __init__(self, pairs: Pairs, scenes: int, bands: int, group: NDArray[np.int32]) -> None:
        rows = len(pairs)
        self.scenes, self.group, self.size = scenes, group, np.bincount(group, minlength=1)[:, None]
        self.difference = pairs.difference.astype(np.float64)
        self.one = (pairs.middle - pairs.difference / 2).astype(np.float64) / _SCALE
        self.other = (pairs.middle + pairs.difference / 2).astype(np.float64) / _SCALE
        row, shape = np.arange(rows), (rows, scenes)
        self.at_one = sp.csr_matrix((np.ones(rows), (row, pairs.one)), shape)
        self.at_other = sp.csr_matrix((np.ones(rows), (row, pairs.other)), shape)
        values = np.concatenate([corners(pairs.place_other), -corners(pairs.place_one)], axis=1)
        columns = np.concatenate([4 * at[:, None] + np.arange(4) for at in (pairs.other, pairs.one)], axis=1)
        self.hats = sp.csr_matrix((values.ravel(), (np.repeat(row, 8), columns.ravel())), (rows, 4 * scenes))
        self.turned = (self.at_one.T.tocsr(), self.at_other.T.tocsr(), self.hats.T.tocsr())
        self.groups = sp.csr_matrix((np.ones(scenes), (group, np.arange(scenes))), (len(self.size), scenes))

    def residual(self, solution: Array) -> Array:
        """(rows, bands) what remains of the differences, DN."""
        return self.difference + self._model(solution)

    def _model(self, solution: Array) -> Array:
        gain, offset = solution[: self.scenes], solution[self.scenes :]
        return self.hats @ offset + self.other * (self.at_other @ gain) - self.one * (self.at_one @ gain)

    def _turned(self, rows: Array) -> Array:
        one, other, hats = self.turned
        return self._level(np.concatenate([other @ (self.other * rows) - one @ (self.one * rows), hats @ rows]))

    def _level(self, unknowns: Array) -> Array:
        """The same with gains that average 1 among linked scenes: without that, gains of 0 would fit best of all."""
        mean = (self.groups @ unknowns[: self.scenes]) / self.size
        unknowns[: self.scenes] -= mean[self.group]
        return unknowns

    def _known(self, solution: Array) -> Array:
        """What is known without looking, times the solution."""
        out = np.empty_like(solution)
        out[: self.scenes] = solution[: self.scenes] / (_GAIN * _SCALE) ** 2
        offset = solution[self.scenes :].reshape(self.scenes, 2, 2, -1)
        bent = offset / _OFFSET**2
        for axis in (1, 2):
            step = np.diff(offset, axis=axis) / _SLOPE**2
            bent += np.concatenate([-step, step], axis=axis)
        out[self.scenes :] = bent.reshape(4 * self.scenes, -1)
        return out

    def solve(self, weight: Array, start: Array) -> Array:
        """Conjugate gradients, each band by itself, preconditioned by the diagonal."""
        one, other, hats = self.turned
        diagonal = np.concatenate(
            [other @ (self.other**2 * weight) + one @ (self.one**2 * weight), hats.power(2) @ weight]
        )
        diagonal[: self.scenes] += 1 / (_GAIN * _SCALE) ** 2
        diagonal[self.scenes :] += 1 / _OFFSET**2 + 2 / _SLOPE**2

        def times(solution: Array) -> Array:
            return self._turned(weight * self._model(solution)) + self._known(solution)

        solution = start.copy()
        right = -self._turned(weight * self.difference)
        left = right - times(solution)
        ready = self._level(left / diagonal)
        way, fall = ready.copy(), (left * ready).sum(axis=0)
        enough = _ENOUGH**2 * np.maximum((right * right / diagonal).sum(axis=0), 1e-30)
        for _ in range(_STEPS):
            if (fall <= enough).all():
                break
            onward = times(way)
            # A band that is there stays: further steps would divide what is left of rounding by nothing.
            step = np.where(fall > enough, fall / np.maximum((way * onward).sum(axis=0), 1e-300), 0.0)
            solution += step * way
            left -= step * onward
            ready = self._level(left / diagonal)
            fall, before = (left * ready).sum(axis=0), fall
            way = ready + fall / np.maximum(before, 1e-300) * way
        return solution
