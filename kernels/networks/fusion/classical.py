"""The classical estimate of all bands on the guide's grid: each group is regressed on everything finer than itself.

Red, green and blue are the guide itself. The near infrared is regressed on them; the 20 m bands on all four; the 60 m
bands on those ten. Everything here is reflectance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from difffusr.kernels.bands import GROUPS, MTF_NYQUIST, RGB
from difffusr.kernels.images import Sensor, back_project, regress, sensor_for_group
from difffusr.kernels.networks.fusion.frame import Groups, pick_channels


def classical_estimates(
    guide: Tensor, native: Mapping[int, Tensor], gsd: int = 60, groups: Groups = GROUPS
) -> dict[int, Tensor]:
    """The groups up to a native GSD on the guide's grid.

    Args:
        guide: (B, 3, H, W) red, green, blue.
        native: by native GSD in metres, (B, C, h, w) on grids 4, 8, 24 times coarser than the guide's; square.
        gsd: the coarsest group that is needed.
        groups: the bands of each group, in channel order.

    Returns:
        By GSD, (B, C, H, W), before back-projection: it changes little, for what the estimates miss is added already.
    """
    estimates: dict[int, Tensor] = {}
    finer = guide  # (B, 3, 4, 10, H, W)
    for group in sorted(g for g in groups if g <= gsd):
        names, measured = groups[group], native[group]
        unknown = [i for i, band in enumerate(names) if band not in RGB]
        bands = [names[i] for i in unknown]
        seen = pick_channels(measured, unknown)
        found = regress(seen, finer, [MTF_NYQUIST[band] for band in bands])
        where = {band: guide[:, i : i + 1] for i, band in enumerate(RGB)}
        where |= {band: found[:, i : i + 1] for i, band in enumerate(bands)}
        estimates[group] = torch.cat([where[band] for band in names], 1) if group == 10 else found
        if group < gsd:
            finer = torch.cat([finer, projected(group, found, seen, bands)], 1)
    return estimates


def projected(gsd: int, x: Tensor, measured: Tensor, bands: Sequence[str]) -> Tensor:
    """Some bands of a group (B, C, H, W) after back-projection on what is measured of them (B, C, h, w)."""
    sensor = _sensor(gsd, measured.shape[-1], tuple(bands), x.device)
    return back_project(x, measured, torch.ones_like(measured[:, :1]), sensor)


@lru_cache(maxsize=64)  # one copy per device, so that no call waits for a transfer
def _sensor(gsd: int, size: int, bands: tuple[str, ...], device: torch.device) -> Sensor:
    with torch.inference_mode(False):
        where = [GROUPS[gsd].index(band) for band in bands]
        return Sensor(*(part[where] for part in sensor_for_group(gsd, size))).to(device)
