"""Gridness of what methods make: by image as a column of a table, and pooled over images by band and period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.measures import PERIODS, GridPower, grid_power
from difffusr.kernels.model import SuperResolution
from difffusr.pipeline.weights.evaluation.report import Metric

#: The column of a table, and its key.
GRID: Final = "grid"

METRIC: Final = Metric(
    "grid %",
    "down",
    2,
    "per cent of the power above 1/8 cycle a pixel that repeats every 4 pixels, of the band that has most; over all "
    "samples that of their pooled power",
)


class Grids:
    """Patterns in the images of some methods, added by power.

    Args:
        bands: names of the images' channels.
    """

    def __init__(self, bands: Sequence[str]) -> None:
        self._bands = tuple(bands)
        self._pools: dict[str, dict[int, GridPower]] = {}

    def add(self, method: str, x: Tensor) -> dict[str, float]:
        """Look at an image (C, H, W) that a method made.

        Returns:
            Its `GRID`, per cent; nothing where the image is too small.
        """
        power, pools = grid_power(x), self._pools.setdefault(method, {})
        known = [period for period in PERIODS if not bool(power.share(period).isnan().any())]
        for period in known:
            pools[period] = pools[period] + power if period in pools else power
        return {GRID: 100 * float(power.share(PERIODS[0]).max())} if PERIODS[0] in known else {}

    def pooled(self, mean: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        """The means of a table with `GRID` from the pooled power in place of the mean over samples."""
        return {method: {**scores, **self._worst(method)} for method, scores in mean.items()}

    def _worst(self, method: str) -> dict[str, float]:
        pool = self._pools.get(method, {}).get(PERIODS[0])
        return {} if pool is None else {GRID: 100 * float(pool.share(PERIODS[0]).max())}

    def by_band(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """By method, band and period: `share` (0 to 1) and `amplitude` in reflectance; plain data."""
        return {
            method: {
                band: {
                    str(period): {"share": float(pool.share(period)[i]), "amplitude": float(pool.amplitude(period)[i])}
                    for period, pool in pools.items()
                }
                for i, band in enumerate(self._bands)
            }
            for method, pools in self._pools.items()
        }


@torch.no_grad()
def product_grid(model: SuperResolution, chips: Iterable[Mapping[int, Tensor]]) -> GridPower:
    """Patterns of the whole product in all bands, as a cube stores it.

    `chips`: by native GSD (1, C, n, n) reflectance of some ground, all bands; everything is taken as valid.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for native in chips:
        valid = {gsd: torch.ones_like(x[:, :1], dtype=torch.bool) for gsd, x in native.items()}
        rows, cols = native[10].shape[-2:]
        noise = torch.randn((1, 3, SCALE * rows, SCALE * cols), generator=generator)
        product = model(native, valid, noise)[0].double().cpu()
        found.append(grid_power((product * 10_000).round() / 10_000, periods=PERIODS[:1]))
    return sum(found[1:], found[0])


def middle_of(bands: Mapping[str, Tensor], side_px: int) -> dict[int, Tensor]:
    """A chip in the middle of a scene's bands on native grids, at most `side_px` pixels of 10 m, a multiple of 6."""
    coarse = bands[GROUPS[60][0]].shape
    side = min(side_px // 6, *coarse)
    row, col = ((n - side) // 2 for n in coarse)

    def cut(gsd: int) -> tuple[slice, slice]:
        f = 60 // gsd
        return slice(row * f, (row + side) * f), slice(col * f, (col + side) * f)

    return {gsd: torch.stack([bands[name][cut(gsd)] for name in names])[None] for gsd, names in GROUPS.items()}
