"""Lines, polygons, noise and blur on a raster."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.pipeline.scenes.synthetic.palette import SUPERSAMPLING, Float


class Canvas:
    """A drawing in metres from the world's upper left corner, as anti-aliased coverage on the 2.5 m grid."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.image = Image.new("L", (shape[1] * SUPERSAMPLING, shape[0] * SUPERSAMPLING))
        self._pen = ImageDraw.Draw(self.image)

    def pixels(self, points_m: NDArray[np.float64]) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (points_m * SUPERSAMPLING / TARGET_GSD_M - 0.5).tolist()]

    def line(self, points_m: NDArray[np.float64], width_m: float) -> None:
        ahead = np.gradient(points_m, axis=0)
        aside = np.stack([-ahead[:, 1], ahead[:, 0]], 1) * width_m / 2
        aside /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
        self.polygon(np.concatenate([points_m + aside, (points_m - aside)[::-1]]))

    def polygon(self, points_m: NDArray[np.float64]) -> None:
        self._pen.polygon(self.pixels(points_m), fill=255)

    def disc(self, centre_m: NDArray[np.float64], radius_m: float) -> None:
        (x, y), radius = self.pixels(centre_m[None])[0], radius_m * SUPERSAMPLING / TARGET_GSD_M
        self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)

    def coverage(self) -> Float:
        return np.asarray(self.image.reduce(SUPERSAMPLING), np.float32) / np.float32(255)


def curve_between(rng: np.random.Generator, start: Any, end: Any, wobble_m: float) -> NDArray[np.float64]:
    """A winding line from start to end, a point every 4 m or so, (n, 2) as x, y."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(end - start))
    t = np.linspace(0, 1, max(int(length / 4), 4))[:, None]
    normal = np.array([start[1] - end[1], end[0] - start[0]]) / length
    aside = sum(rng.normal(0, wobble_m) / k**1.2 * np.sin(np.pi * k * t) for k in range(1, 9))
    line: NDArray[np.float64] = start + t * (end - start) + aside * normal
    return line


def rectangle_at(
    centre: NDArray[np.float64], direction: NDArray[np.float64], long_m: float, wide_m: float
) -> NDArray[np.float64]:
    normal = np.array([-direction[1], direction[0]])
    along, across = direction * long_m / 2, normal * wide_m / 2
    return centre + np.array([-along - across, along - across, along + across, across - along])


def boundary_of(label: NDArray[Any]) -> Float:
    """Soft lines, about two pixels wide, where a label changes."""
    change = np.zeros(label.shape, np.float32)
    change[1:] = label[1:] != label[:-1]
    change[:, 1:] = np.maximum(change[:, 1:], label[:, 1:] != label[:, :-1])
    return np.clip(1.4 * smoothed_1_2_1(smoothed_1_2_1(change, 0), 1), 0, 1)


def smoothed_1_2_1(values: Float, axis: int) -> Float:
    """Running mean with weights 1 2 1 along an axis; wraps around."""
    return np.float32(0.5) * values + np.float32(0.25) * (np.roll(values, 1, axis) + np.roll(values, -1, axis))


def soften_image(image: Float) -> None:
    """The image through the optics of a 2.5 m sensor: weights 0.12 0.76 0.12 down and across, in place."""
    for band in image:  # a view: written in place
        padded = np.pad(band, 1, mode="edge")
        down = 0.76 * padded[1:-1] + 0.12 * (padded[:-2] + padded[2:])
        band[:] = 0.76 * down[:, 1:-1] + 0.12 * (down[:, :-2] + down[:, 2:])


def shifted_by(values: Float, down: int, right: int) -> Float:
    """Values moved by whole pixels; the border repeats."""
    height, width = values.shape
    rows, columns = np.arange(height) - down, np.arange(width) - right
    return values[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]


def _frequencies(shape: tuple[int, int]) -> Float:
    """Spatial frequency in cycles per metre for each coefficient of rfft2."""
    fy, fx = np.fft.fftfreq(shape[0], TARGET_GSD_M), np.fft.rfftfreq(shape[1], TARGET_GSD_M)
    return np.hypot(fy[:, None], fx[None]).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], power: float, shortest_m: float, longest_m: float
) -> Float:
    """Noise with amplitude 1 / frequency^power between two wavelengths, zero mean and unit variance."""
    frequency = _frequencies(shape)
    longest_m = min(longest_m, max(shape) * TARGET_GSD_M)
    keep = (frequency >= 1 / longest_m) & (frequency <= 1 / shortest_m)
    gain = np.where(keep, np.maximum(frequency, 1e-6) ** -power, 0).astype(np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape, np.float32)) * gain, s=shape)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def blurred(values: Float, sigma_px: float) -> Float:
    """Gaussian blur; wraps around."""
    gain = np.exp(-2 * (np.pi * sigma_px * TARGET_GSD_M * _frequencies(values.shape)) ** 2)
    return np.fft.irfft2(np.fft.rfft2(values) * gain, s=values.shape).astype(np.float32)
