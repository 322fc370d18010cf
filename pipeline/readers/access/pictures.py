"""Three bands as a picture, without any library for plots."""

from __future__ import annotations

import numpy as np
import xarray as xr
from PIL import Image

from difffusr.pipeline.ground.errors import ConfigError

#: Share of values that become black and white, in per cent.
_DARKEST, _BRIGHTEST = 1.0, 99.0

#: Exponent that lightens what is dark.
_GAMMA = 0.8


def picture(bands: xr.DataArray, low: float | None = None, high: float | None = None) -> Image.Image:
    """Three bands as red, green and blue, transparent where there is no data.

    All three have one range, so that grey stays grey.

    Args:
        bands: (3, y, x) reflectance, or (y, x) for a grey picture.
        low, high: what becomes black and white; by default the first and the last percentile.

    Raises:
        ConfigError: it has other dimensions.
    """
    values = np.asarray(bands, np.float32)
    if values.ndim == 2:
        values = np.repeat(values[None], 3, axis=0)
    if values.ndim != 3 or len(values) != 3:
        raise ConfigError(
            f"picture: found {dict(bands.sizes)}, expected three bands, y and x; choose bands and a period"
        )
    seen = np.asarray(np.isfinite(values).all(axis=0))
    ends = np.percentile(values[:, seen], [_DARKEST, _BRIGHTEST]) if seen.any() else (0.0, 1.0)
    dark, bright = (end if given is None else given for given, end in zip((low, high), ends, strict=True))
    part = np.clip((np.nan_to_num(values) - dark) / max(bright - dark, 1e-6), 0.0, 1.0) ** _GAMMA
    pixels = np.concatenate([np.rint(part * 255), seen[None] * 255.0]).astype(np.uint8)
    return Image.fromarray(np.moveaxis(pixels, 0, -1), "RGBA")
