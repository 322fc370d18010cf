"""Three bands as a picture."""

from __future__ import annotations

import numpy as np
import xarray as xr
from PIL import Image

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.drawing import drawn


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
    return Image.fromarray(drawn(values, np.asarray(np.isfinite(values).all(axis=0)), low, high), "RGBA")
