"""Whether two ways to draw images have the same distribution."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import ks_2samp
from torch import Tensor

#: Least probability, by the test of Kolmogorov and Smirnov, that a feature of two sets is of one distribution.
DIFFERENT = 1e-4


def features(x: Tensor) -> dict[str, np.ndarray]:
    """Of each image (N, C, H, W): moments, quantiles, spectrum by ring, its lie: {name: (N,)}, channel by channel."""
    flat = x.flatten(2)
    ordered, last = flat.sort(2).values, flat.shape[2] - 1
    found = {"mean": flat.mean(2), "deviation": flat.std(2)}
    found |= {f"quantile {share:g}": ordered[:, :, round(share * last)] for share in (0.02, 0.25, 0.5, 0.75, 0.98)}
    power = torch.fft.fft2(x - x.mean((2, 3), keepdim=True)).abs().square().flatten(2)
    radius = torch.hypot(*torch.meshgrid(*(torch.fft.fftfreq(n) for n in x.shape[-2:]), indexing="ij")).flatten()
    for low, high in ((0.01, 0.06), (0.06, 0.12), (0.12, 0.25), (0.25, 0.5)):
        ring = ((radius > low) & (radius <= high)).float()
        if ring.any():
            found[f"power {low:g}–{high:g}"] = (power @ ring / ring.sum() + 1e-12).log()
    down, right = (x.diff(dim=axis) for axis in (2, 3))
    found["lie"] = ((down.square().mean((2, 3)) + 1e-12) / (right.square().mean((2, 3)) + 1e-12)).log()
    steps = right.abs().flatten(2).sort(2).values
    found["noise of what is even"] = (steps[:, :, steps.shape[2] // 5] + 1e-6).log()
    found["to the right"], found["downwards"] = right.mean((2, 3)), down.mean((2, 3))
    return {f"{name}, channel {c}": values[:, c].numpy() for name, values in found.items() for c in range(x.shape[1])}


def differences(one: Tensor, other: Tensor) -> dict[str, float]:
    """The features in which two sets of images differ, with the probability that they are of one distribution."""
    ours, theirs = features(one), features(other)
    found = {name: float(ks_2samp(ours[name], theirs[name], method="asymp").pvalue) for name in ours}
    return {name: probability for name, probability in found.items() if probability < DIFFERENT}
