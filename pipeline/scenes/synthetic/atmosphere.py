"""Air over the generated world on one day: haze, clouds and their shadows, on its 20 m grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.drawing import blurred, shifted_by, smooth_noise
from difffusr.pipeline.scenes.synthetic.orbits import Acquisition, Haze
from difffusr.pipeline.scenes.synthetic.palette import Float

_GSD_M = 20

#: Metres here are 2.5 m pixels there: `drawing` measures in its own pixels.
_SCALE = TARGET_GSD_M / _GSD_M

#: How high clouds float: metres, and at most so many of the world's mean side, or shadows would leave it.
_CLOUD_HEIGHT_M, _OF_SIDE = 700.0, 0.2


@dataclass(frozen=True)
class Air:
    """Air on one day, (H, W) at 20 m.

    opacity, shade: of clouds and of their shadows, 0 – 1. texture: brightness of clouds, about 1. lie: how haze lies,
    zero mean and unit variance.
    """

    opacity: Float
    shade: Float
    texture: Float
    lie: Float

    def haze(self, haze: Haze) -> Float:
        """(H, W) reflectance that haze adds to blue."""
        return np.maximum(haze.blue * (1 + haze.uneven * self.lie), 0).astype(np.float32)


def air_on(acquisition: Acquisition, rng: np.random.Generator, shape: tuple[int, int]) -> Air:
    """shape: (H, W) at 20 m."""
    side_m = max(shape) * _GSD_M
    lie = smooth_noise(rng, shape, 2.0, side_m / 3 * _SCALE, side_m * _SCALE)
    texture = 1 + 0.10 * smooth_noise(rng, shape, 1.3, 40 * _SCALE, 600 * _SCALE)
    rough = smooth_noise(rng, shape, 1.7, 40 * _SCALE, 900 * _SCALE)
    opacity = np.zeros(shape, np.float32)
    y, x = ((np.arange(side, dtype=np.float32) + 0.5) / side for side in shape)
    wide, high = (side / np.sqrt(shape[0] * shape[1]) for side in shape[::-1])
    for across, down, radius in acquisition.clouds:
        far = np.hypot((x[None] - across) * wide, (y[:, None] - down) * high) / radius
        opacity = np.maximum(opacity, np.clip((1.15 - far + 0.2 * rough) / 0.6, 0, 1))
    opacity = np.clip(blurred(opacity * opacity * (3 - 2 * opacity), 1.0) - 0.01, 0, 1)
    zenith, azimuth = np.radians(acquisition.orbit.sun_deg)
    height_px = min(_CLOUD_HEIGHT_M / _GSD_M, _OF_SIDE * np.sqrt(shape[0] * shape[1]))
    away_px = height_px * np.tan(zenith)
    down, right = round(float(np.cos(azimuth) * away_px)), round(float(-np.sin(azimuth) * away_px))
    shade = np.clip(blurred(shifted_by(opacity, down, right), 1.5) - 0.005, 0, 1)
    return Air(opacity, shade, texture.astype(np.float32), lie)


def resampled(field: Float, shape: tuple[int, ...]) -> Float:
    """A field of 20 m on a coarser or finer grid of the same extent, linearly between pixels."""
    if field.shape == shape:
        return field
    return np.asarray(Image.fromarray(field).resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float32)
