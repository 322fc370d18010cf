"""Radiometric consistency: the 2.5 m result, seen through the sensor, gives the measurement back.

The sensor is a separable linear operator on a chip: two small matrices. Any number of back-projection iterations is
one eigendecomposition per axis. No loop, no padding convention: a few matrix products on any device.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST, TARGET_GSD_M
from difffusr.kernels.images.contrast import local_moments

#: Iterations of back-projection by native GSD, computed at once in closed form. Too many are a deconvolution, which on
#: real scenes rings around bright roofs and turns misregistered bands into coloured fringes. This number restores
#: level and contrast exactly, and leaves most of what the sensor barely passes to the networks.
ITERATIONS: Final = {10: 8, 20: 12, 60: 12}

#: Standard deviation of a measured image's noise, reflectance: the instrument's, as atmospheric correction amplifies it
#: over dark water.
NOISE: Final = 0.002


def gaussian_sigma(factor: int, mtf_nyquist: float) -> float:
    """Standard deviation, in fine pixels, of the Gaussian that with the detector's box gives an MTF at Nyquist.

    The box over `factor` fine pixels passes 2/π at the coarse Nyquist frequency; the Gaussian supplies the rest:
    exp(−σ²ω²/2) with ω = π/factor.
    """
    return factor / math.pi * math.sqrt(-2.0 * math.log(mtf_nyquist * math.pi / 2.0))


@lru_cache(maxsize=64)
def sensor_matrix(coarse: int, factor: int, mtf_nyquist: float) -> NDArray[np.float64]:
    """The weights of fine pixels in each coarse pixel along one axis; rows add up to one.

    Args:
        coarse: pixels along the coarse axis; the fine axis has coarse·factor.
        factor: fine pixels in one coarse pixel.
        mtf_nyquist: the band's modulation transfer at the coarse Nyquist frequency.

    Returns:
        (coarse, coarse·factor) float64. At the ends, weights that fall outside are dropped and the rest
        rescaled: nothing is assumed about the ground beyond the chip.
    """
    sigma = gaussian_sigma(factor, mtf_nyquist)
    fine = np.arange(coarse * factor) + 0.5
    left = np.arange(coarse)[:, None] * factor
    erf = np.vectorize(math.erf)
    reach = 4.0 * sigma
    distance_left = np.clip((fine[None, :] - left) / (math.sqrt(2.0) * sigma), -8, 8)
    distance_right = np.clip((fine[None, :] - left - factor) / (math.sqrt(2.0) * sigma), -8, 8)
    near = (fine[None, :] > left - reach) & (fine[None, :] < left + factor + reach)
    # The integral of the Gaussian over the detector, from the centre of each fine pixel.
    weights = np.zeros((coarse, coarse * factor))
    weights[near] = erf(distance_left[near]) - erf(distance_right[near])
    return weights / weights.sum(axis=1, keepdims=True)


class Sensor(NamedTuple):
    """The sensor over one square chip for the bands of one native resolution.

    Attributes:
        forward: (C, n, n·factor) float32, one matrix a band.
        inverse_basis: (C, n, n) float32, eigenvectors Q of M Mᵀ.
        inverse_gain: (C, n, n) float32, (1 − (1 − λᵢλⱼ/λ_max)ᵏ) / λᵢλⱼ for k iterations.
    """

    forward: Tensor
    inverse_basis: Tensor
    inverse_gain: Tensor

    def to(self, device: torch.device | str) -> Sensor:
        """The same sensor on another device."""
        return Sensor(*(t.to(device) for t in self))


def sensor_for_group(gsd_m: int, size: int, iterations: int | None = None) -> Sensor:
    """The sensor of the bands native to `gsd_m` metres over a chip of size × size native pixels.

    Args:
        iterations: of back-projection; those of the group in `ITERATIONS` by default.
    """
    count = ITERATIONS[gsd_m] if iterations is None else iterations
    factor = int(gsd_m / TARGET_GSD_M)
    forward, basis, gain = [], [], []
    for band in GROUPS[gsd_m]:
        m = sensor_matrix(size, factor, MTF_NYQUIST[band])
        values, vectors = np.linalg.eigh(m @ m.T)
        pairs = np.outer(values, values)
        forward.append(m)
        basis.append(vectors)
        # Σ_{i<k} (1 − λ)^i: the sum of k steps of gradient descent with step 1/λ_max
        gain.append((1.0 - (1.0 - pairs / pairs.max()) ** count) / pairs)
    return Sensor(*(torch.from_numpy(np.stack(a)).to(torch.float32) for a in (forward, basis, gain)))


def observe(x: Tensor, sensor: Sensor) -> Tensor:
    """The sensor's measurement of a fine image: (B, C, n·factor, n·factor) → (B, C, n, n)."""
    m = sensor.forward
    return m @ x @ m.transpose(-1, -2)


def back_project(x: Tensor, measured: Tensor, valid: Tensor, sensor: Sensor) -> Tensor:
    """Change x as little as possible so that the sensor sees it as `measured`.

    Iterated back-projection after Irani and Peleg (1991) in closed form: x + Mᵀ g(M Mᵀ) (measured − M x), where g tends
    to the inverse (the least-squares projection) as the sensor's iterations grow.

    Where the measured image varies by no more than its noise, only the residual's local mean is corrected: sharpening
    noise by the inverse of the sensor would put texture on open water.

    Args:
        x: (B, C, H, W) reflectance at 2.5 m.
        measured: (B, C, n, n) reflectance on the native grid.
        valid: (B, 1, n, n) 1 where `measured` holds data; elsewhere x is not constrained.
    """
    m, q, gain = sensor
    residual = (measured - observe(x, sensor)) * valid
    variance = local_moments(measured)[1]
    signal = (1 - NOISE**2 / variance.clamp_min(NOISE**2)).clamp_min(0)  # share of the variance, (B, C, n, n)
    low = local_moments(residual)[0]
    residual = (low + signal * (residual - low)) * valid
    u = q.transpose(-1, -2) @ residual @ q
    u = q @ (u * gain) @ q.transpose(-1, -2)
    return x + m.transpose(-1, -2) @ u @ m
