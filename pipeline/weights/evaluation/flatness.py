"""Does open water stay flat? Texture of the product compared with that of its input, band by band."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rasterio
import torch
import torch.nn.functional as F

from difffusr.kernels.bands import BANDS, GROUPS, band_indices
from difffusr.kernels.measures import texture_energy
from difffusr.kernels.model import SuperResolution
from difffusr.pipeline.ground.errors import ReadError

#: Neighbourhood of the texture, metres to each side: 2 pixels of 10 m, 10 of 2.5 m.
_REACH_10M_PX, _REACH_FINE_PX = 2, 10


def evaluate_flatness(model: SuperResolution, path: Path, side_px: int = 192) -> dict[str, dict[str, float]]:
    """Texture energy of a 12-band image of 10 m before and after, in reflectance, by band: "input", "product".

    The energy is the standard deviation of pixels minus the mean of the 50 m around them, so both are at one scale.
    The middle of the image is taken, at most `side_px` pixels; the 20 and 60 m bands are its means over their
    pixels. Raises ReadError for a file that is not 12 bands in the usual order.
    """
    native = read_stack(path, side_px)
    side = native[10].shape[-1]
    valid = {gsd: torch.ones_like(x[:, :1], dtype=torch.bool) for gsd, x in native.items()}
    noise = torch.randn((1, 3, 4 * side, 4 * side), generator=torch.Generator().manual_seed(0))
    product = (model(native, valid, noise)[0].float().cpu() * 10_000).round() / 10_000  # as a cube stores it
    return {
        band: {
            "input": float(texture_energy(_on_10_m(native, band, side), _REACH_10M_PX)),
            "product": float(texture_energy(product[i : i + 1], _REACH_FINE_PX)),
        }
        for i, band in enumerate(BANDS)
    }


def read_stack(path: Path, side_px: int) -> dict[int, torch.Tensor]:
    """The middle of such an image by native GSD, (1, C, n, n) reflectance each. Raises ReadError as above."""
    with rasterio.open(path) as dataset:
        if dataset.count != len(BANDS):
            raise ReadError(
                f"{path}: {dataset.count} bands, expected the 12 of Level-2A in the order {', '.join(BANDS)}"
            )
        image = torch.from_numpy(dataset.read().astype("float32")) / 10_000
    side = min(side_px, min(image.shape[-2:]) // 6 * 6)
    row, col = ((n - side) // 2 for n in image.shape[-2:])
    image = image[:, row : row + side, col : col + side]
    return {gsd: _reduced(image[band_indices(names)], gsd // 10) for gsd, names in GROUPS.items()}


def _reduced(x: torch.Tensor, factor: int) -> torch.Tensor:
    return F.avg_pool2d(x[None], factor) if factor > 1 else x[None]


def _on_10_m(native: Mapping[int, torch.Tensor], band: str, side: int) -> torch.Tensor:
    """The band as measured, on the 10 m grid: (1, side, side)."""
    gsd = next(g for g, names in GROUPS.items() if band in names)
    x = native[gsd][:, [GROUPS[gsd].index(band)]]
    return F.interpolate(x, size=[side, side], mode="nearest")[0]
