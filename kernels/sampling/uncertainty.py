"""How much a result depends on the noise: the standard deviation of repeated samples, computed in one pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def sample_spread(samples: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The first of some samples, and their standard deviation.

    One pass over the samples (Welford, "Note on a method for calculating corrected sums of squares and products",
    Technometrics 4, 1962): besides the current sample only the first, the running mean and the running sum of squares
    are held, for any number of samples.

    Args:
        samples: two or more tensors of one floating-point dtype and shape (…), independent draws of the same quantity;
            an iterator that computes them one at a time keeps memory bounded. They are not modified.

    Returns:
        the first sample itself, and the standard deviation with n − 1 in the denominator (…), in the samples' units;
        exactly 0 where all samples are equal.

    Raises:
        ValueError: fewer than two samples.
    """
    first: Tensor | None = None
    mean = squares = torch.empty(0)
    count = 0
    for count, sample in enumerate(samples, start=1):
        if first is None:
            first, mean, squares = sample, sample.clone(), torch.zeros_like(sample)
            continue
        ahead = sample - mean
        mean += ahead / count
        squares += ahead * (sample - mean)
    if first is None or count < 2:
        raise ValueError(f"a spread of {count} sample{'' if count == 1 else 's'}: expected at least 2")
    return first, (squares / (count - 1)).sqrt_()
