"""The patches that a training of stage 1 draws from its images (reference section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.kernels.images import GAMMA_RGB, power_law
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.imagery import HRImage, Images, resample
from difffusr.pipeline.weights.training.layouts import ImageFile
from difffusr.pipeline.weights.training.reading import read_image, size_of

Radiometry = Literal["mixed", "published", "none"]

#: By `resample`, the levels an image is drawn at: (GSD in metres, preference); 0 is its own GSD.
_LEVELS = {
    "pyramid": ((TARGET_GSD_M, 1.0), (1.6, 0.35), (0.0, 0.35)),
    "target": ((TARGET_GSD_M, 1.0),),
    "none": ((0.0, 1.0),),
}


@dataclass(frozen=True)
class PatchSource:
    """Draws patches of HR imagery in reflectance, at several GSDs and with the radiometry of many scenes.

    `levels` give an image at one GSD when called, `weights` say how often each is drawn; both in the same order.
    """

    levels: Sequence[Callable[[], HRImage]]
    weights: NDArray[np.float64]
    size_px: int
    radiometry: Radiometry = "mixed"

    @classmethod
    def build(cls, images: Iterable[HRImage], size_px: int, radiometry: Radiometry = "mixed") -> PatchSource:
        """A pyramid of each image at 2.5 m (preferred), 1.6 m and its own GSD; larger images are drawn more often.

        Raises ConfigError where none of the images is as large as a patch.
        """
        levels: list[HRImage] = []
        weights: list[float] = []
        for image in images:
            for gsd, preference in _LEVELS[image.resample]:
                level = resample(image, gsd or image.gsd_m)
                if min(level.valid.shape) < size_px or any(level is other for other in levels):
                    continue
                levels.append(level)
                weights.append(preference * level.valid.sum() ** 0.5)
        return cls([partial(_same, level) for level in levels], _shares(weights, size_px), size_px, radiometry)

    @classmethod
    def stored(
        cls, files: Sequence[ImageFile], size_px: int, radiometry: Radiometry = "mixed", kept: int = 64
    ) -> PatchSource:
        """As `build`, for more images than memory holds: each is read when it is drawn, the last `kept` stay."""
        levels: list[Callable[[], HRImage]] = []
        weights: list[float] = []
        read = lru_cache(maxsize=kept)(lambda file, gsd: resample(read_image(file), gsd))
        for file in files:
            sizes: set[tuple[int, int]] = set()
            for gsd, preference in _LEVELS[file.resample]:
                ratio = (gsd or file.gsd_m) / file.gsd_m
                h, w = (round(n / ratio) if ratio >= 1.3 else n for n in size_of(file))
                if min(h, w) < size_px or (h, w) in sizes:
                    continue
                sizes.add((h, w))
                levels.append(partial(read, file, gsd or file.gsd_m))
                weights.append(preference * (h * w) ** 0.5)
        return cls(levels, _shares(weights, size_px), size_px, radiometry)

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Two patches of one image with the same radiometry: float32 (2, 3, size, size), reflectance in [0, 1].

        Raises ConfigError where no patch without a gap is found in a thousand tries.
        """
        for _ in range(1000):
            image = self.levels[rng.choice(len(self.levels), p=self.weights)]()
            windows = [self._window(image, rng) for _ in range(2)]
            if all(image.valid[window].all() for window in windows):
                break
        else:
            raise ConfigError(
                f"data: found no patch of {self.size_px} pixels without gaps (nodata_at_ends) in 1000 tries"
            )
        turn = random_turn(rng)
        patches = np.stack([turn(image.pixels[(slice(None), *window)]) for window in windows])
        x = torch.from_numpy(patches)
        if self.radiometry == "mixed":
            return random_radiometry(x, image.display, rng)
        return power_law(x, GAMMA_RGB) if self.radiometry == "published" and image.display else x

    def _window(self, image: HRImage, rng: np.random.Generator) -> tuple[slice, slice]:
        row, col = (int(rng.integers(n - self.size_px + 1)) for n in image.valid.shape)
        return slice(row, row + self.size_px), slice(col, col + self.size_px)


def _same(image: HRImage) -> HRImage:
    return image


def _shares(weights: Sequence[float], size_px: int) -> NDArray[np.float64]:
    if not weights:
        raise ConfigError(f"data: no image is as large as a patch, {size_px} × {size_px} pixels; lower lr_px")
    share = np.array(weights)
    return share / share.sum()


def random_turn(rng: np.random.Generator) -> Callable[[Images], Images]:
    """One of the eight turns and flips of the last two axes."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turn(x: Images) -> Images:
        x = np.rot90(x, turns, axes=(-2, -1))
        return np.ascontiguousarray(x[..., ::-1] if flip else x)

    return turn


def random_radiometry(x: Tensor, display: bool, rng: np.random.Generator) -> Tensor:
    """Imagery in [0, 1] (..., 3, H, W) as the reflectance of some scene: mostly dark as Sentinel-2 is, some bright.

    Pictures for the eye go through the harmonisation's power law with an exponent that varies (from the published one
    to none at all); then everything gets a random gain and offset, a little different per band.
    """
    if display:
        kind = rng.random()
        exponent = 1.0 if kind < 0.15 else rng.uniform(1.0, 2.2) if kind < 0.4 else rng.uniform(2.2, 3.4)
        x = power_law(x, [1 / (exponent * rng.uniform(0.95, 1.05)) for _ in range(3)])
    if rng.random() < 0.8:
        gain = math.exp(rng.uniform(math.log(0.4), math.log(1.6)))
        offset = rng.uniform(0, 0.1) ** 1.5 if rng.random() < 0.7 else rng.uniform(0, 0.25)
        jitter = torch.from_numpy(rng.uniform(0.85, 1.15, (2, 3, 1, 1)).astype(np.float32))
        x = x * gain * jitter[0] + offset * jitter[1]
    return x.clamp(0, 1)
