"""Several looks at the same ground made one: geometric median and medoid, as weights of the looks.

The geometric median of vectors x₁ … x_K is the y that minimises f(y) = Σ ‖y − x_k‖ (Weiszfeld 1937). It lies in their
convex hull, y = Σ w_k x_k, and here the weights are what is computed. Applied to every band they make a spectrum of
real spectra, which medians band by band do not. As long as less than half of the looks are wrong, y stays near the
others (Lopuhaä and Rousseeuw 1991).

All steps need the looks' distances alone: with D_ij = ‖x_i − x_j‖², ‖y − x_j‖² = Σ_i w_i D_ij − ½ Σ_ik w_i w_k D_ik.
So a step costs K² numbers a pixel, whatever the number of bands.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: How far f(y) may be above the least sum of distances, as a share of it.
TOLERANCE = 1e-5

#: Steps after which a pixel is left as it is. Few need more than 40.
MAX_STEPS = 300

#: Most times the way of two steps that is extrapolated: between two groups of looks, as many in each, the way is long.
_FARTHEST = 1e3

#: Sums of distances that differ by less, relatively, are equal: rounding decides nothing.
_EQUAL = 1e-12


def geomedian_weights(looks: Tensor, clear: Tensor, tolerance: float = TOLERANCE, max_steps: int = MAX_STEPS) -> Tensor:
    """Weights of the looks in their geometric median, pixel by pixel.

    Where the median is not unique, as for any two looks and an even number on a line, it is the mean of the looks
    between which it may lie: of two the midpoint, which favours neither.

    Begins at the look with the least sum of distances: if that is the median (its pull is not stronger than its own
    weight: Vardi and Zhang 2000), it is done. If not, their step leads below the sums of all looks. Weiszfeld's steps
    only descend, so none of them ever meets a look again, where they would be undefined.

    Args:
        looks: (K, C, h, w) floating point vectors of C bands; what they hold where they are not clear is ignored.
        clear: (K, h, w) bool, which looks count.
        tolerance: a pixel is done when its sum of distances certainly exceeds the least by at most this share. Double
            precision knows it to about 1e-7.
        max_steps: most steps of a pixel.

    Returns:
        (K, h, w) weights ≥ 0 of the dtype of `looks`; their sum is 1, or 0 where no look is clear. A look that is not
        clear has weight 0. Computed in double precision, the same each time.
    """
    count, shape = len(looks), clear.shape[1:]
    shown = clear.reshape(count, -1)
    squared = _squared_distances(looks.flatten(2), shown)
    sums, best = _best(squared.sqrt(), shown)
    equal = shown & (sums <= sums.min(dim=0).values * (1 + _EQUAL))
    weights = equal.double() / equal.sum(dim=0).clamp(min=1)
    first, moves = _first_step(squared, shown, best)
    left = torch.nonzero(moves).flatten()
    weights[:, left] = first[:, left]
    _descend(weights, squared, shown.double(), left, tolerance, max_steps)
    return weights.to(looks.dtype).reshape(count, *shape)


def medoid_weights(looks: Tensor, clear: Tensor) -> Tensor:
    """As `geomedian_weights`, of the medoid: 1 for the look whose sum of distances to the others is least, of equal
    ones the first, and 0 for all others."""
    shown = clear.reshape(len(looks), -1)
    _, best = _best(_squared_distances(looks.flatten(2), shown).sqrt(), shown)
    number = torch.arange(len(looks), device=looks.device)[:, None]
    return ((number == best) & shown).to(looks.dtype).reshape(clear.shape)


def _squared_distances(looks: Tensor, shown: Tensor) -> Tensor:
    """(K, K, n) double: of looks (K, C, n) that are both shown (K, n), else 0."""
    count, _, pixels = looks.shape
    squared = torch.zeros(count, count, pixels, dtype=torch.float64, device=looks.device)
    for i in range(count):
        for j in range(i):
            apart = (looks[i] - looks[j]).square_().sum(dim=0, dtype=torch.float64)
            squared[i, j] = squared[j, i] = torch.where(shown[i] & shown[j], apart, 0.0)
    return squared


def _best(distances: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """(K, n) each look's sum of distances to the others, infinite where it is not shown; (n,) the look with the least,
    of equal ones the first."""
    sums = torch.where(shown, distances.sum(dim=1), torch.inf)
    return sums, (sums <= sums.min(dim=0).values * (1 + _EQUAL)).to(torch.uint8).argmax(dim=0)


def _first_step(squared: Tensor, shown: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
    """Vardi and Zhang's step from each pixel's best look: (K, n) weights, and (n,) whether it leads anywhere.

    With u_i the unit vector to each look elsewhere, the pull is r = ‖Σ u_i‖, and m looks hold against it where they
    coincide. r² = (Σ d_i)(Σ 1 / d_i) − ½ Σ_ik D_ik / (d_i d_k).
    """
    pixel = torch.arange(squared.shape[-1], device=squared.device)
    own = squared[best, :, pixel].T
    elsewhere = shown & (own > 0)
    near = torch.where(elsewhere, own.rsqrt(), 0.0)
    total = near.sum(dim=0)
    pull = ((own * near).sum(dim=0) * total - 0.5 * (near * _times(squared, near)).sum(dim=0)).clamp(min=0).sqrt()
    held = (shown & (own == 0)).sum(dim=0)
    moves = pull > held * (1 + 1e-9)
    stays = held / pull.clamp(min=1e-300)
    weights = near / total.clamp(min=1e-300) * (1 - stays)
    weights[best, pixel] += stays
    return weights, moves


def _times(squared: Tensor, weights: Tensor) -> Tensor:
    """(K, n): Σ_j D_ij w_j."""
    out = squared[:, 0] * weights[0]
    for j in range(1, len(weights)):
        out.addcmul_(squared[:, j], weights[j])
    return out


def _descend(weights: Tensor, squared: Tensor, shown: Tensor, left: Tensor, tolerance: float, max_steps: int) -> None:
    """Weiszfeld's steps on the pixels `left`, in place: weights proportional to 1 / distance.

    With s = Σ 1 / d_k, a step from y to t is −∇f / s, so that f(y) − f* ≤ ‖∇f‖ · max d_k = s ‖y − t‖ · max d_k: the
    median is nowhere farther than the farthest look. After every two steps, r long and v longer than that, the way is
    extrapolated by squares, y + 2a r + a² v with a = ‖r‖ / ‖v‖ (Varadhan and Roland 2008), where that descends.
    """
    squared, shown, w = squared[:, :, left], shown[:, left], weights[:, left]
    pulled, open_ = _times(squared, w), torch.ones_like(left, dtype=torch.bool)
    for _ in range(max_steps // 2):
        if not len(left):
            return
        apart = _apart(w, pulled)
        one, total = _step(shown, apart)
        pulled_one = _times(squared, one)
        r, pulled_r = one - w, pulled_one - pulled
        moved = (-0.5 * (r * pulled_r).sum(dim=0)).clamp_(min=0)
        reached = shown * apart
        ends = total * moved.sqrt() * reached.amax(dim=0) <= tolerance * reached.sum(dim=0)
        now = ends & open_
        weights[:, left[now]], open_ = one[:, now], open_ & ~ends
        apart_one = _apart(one, pulled_one)
        two, _ = _step(shown, apart_one)
        pulled_two = _times(squared, two)
        v, pulled_v = (two - one).sub_(r), (pulled_two - pulled_one).sub_(pulled_r)
        a = (moved / (-0.5 * (v * pulled_v).sum(dim=0)).clamp_(min=1e-300)).sqrt_().clamp_(1, _FARTHEST)
        far, pulled_far = w + 2 * a * r + a * a * v, pulled + 2 * a * pulled_r + a * a * pulled_v
        better = (shown * _apart(far, pulled_far)).sum(dim=0) <= (shown * apart_one).sum(dim=0)
        w, pulled = torch.where(better, far, two), torch.where(better, pulled_far, pulled_two)
        if open_.sum() < 0.8 * len(left):  # copying costs about a step
            left, shown, squared = left[open_], shown[:, open_], squared[:, :, open_]
            w, pulled, open_ = w[:, open_], pulled[:, open_], open_[open_]
    weights[:, left[open_]] = _step(shown, _apart(w, pulled))[0][:, open_]


def _apart(weights: Tensor, pulled: Tensor) -> Tensor:
    """(K, n) distance of y = Σ w_k x_k from each look; `pulled` is `_times` of the weights."""
    return (pulled - 0.5 * (weights * pulled).sum(dim=0)).clamp_(min=1e-300).sqrt_()


def _step(shown: Tensor, apart: Tensor) -> tuple[Tensor, Tensor]:
    """(K, n) Weiszfeld's weights for distances, and (n,) Σ 1 / d_k."""
    near = shown / apart
    total = near.sum(dim=0)
    return near / total, total
