"""The patches that a training of stage 1 draws from its images (reference section 4), a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import TARGET_GSD_M
from difffusr.kernels.images import GAMMA_RGB, power_law
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.training.crops import Crops, turn_bits
from difffusr.pipeline.weights.training.draws import Draws, Seeds
from difffusr.pipeline.weights.training.imagery import HRImage, resample

Radiometry = Literal["mixed", "published", "none"]

#: Bytes that a pixel takes in memory: three float16, in a pyramid, twice while it is built.
BYTES_PER_PIXEL: Final = 2 * 6 * 1.6

#: Patches that are drawn together: of one place in the same manner, see `degrading`.
EACH: Final = 2

#: By `resample`, the levels an image is drawn at: (GSD in metres, preference); 0 is its own GSD.
_LEVELS: Final = {
    "pyramid": ((TARGET_GSD_M, 1.0), (1.6, 0.35), (0.0, 0.35)),
    "target": ((TARGET_GSD_M, 1.0),),
    "none": ((0.0, 1.0),),
}

#: What numbers are drawn for (`draws.Seeds`).
_PLACES, _RADIOMETRY, _AGAIN = 1, 2, 3


class Image(Protocol):
    """An image that can be read whenever it is needed."""

    @property
    def gsd_m(self) -> float: ...
    @property
    def resample(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""

    def read(self) -> HRImage:
        """Its pixels. Raises ReadError, which names the file."""


class PatchSource(Protocol):
    """Draws patches of HR imagery, at several GSDs."""

    @property
    def waits(self) -> bool:
        """Whether it waits for files: batches are then made ahead."""

    def draw(self, seeds: Seeds, batch: int) -> tuple[Tensor, Tensor]:
        """Two patches of each of `batch` images, turned alike: float32 (B, 2, 3, size, size) in [0, 1], on the device.

        And, bool (B,), which of them are pictures made for display. Raises ConfigError where no patch without a gap is
        found.
        """


def patch_source(images: Sequence[Image], size_px: int, device: torch.device, memory_gb: float) -> PatchSource:
    """Patches of images that are all on the device, or, if that takes more memory, read when they are drawn.

    Raises ConfigError where no image holds a patch.
    """
    pixels = sum(h * w for h, w in (image.size for image in images))
    if pixels * BYTES_PER_PIXEL > memory_gb * 1e9:
        return StoredPatches.of(images, size_px, device)
    return ResidentPatches.of(images, size_px, device)


@dataclass(frozen=True)
class ResidentPatches:
    """Patches of images that are on the device as float16, at all their levels."""

    crops: Crops
    display: Tensor
    waits: bool = False

    @classmethod
    def of(cls, images: Iterable[Image], size_px: int, device: torch.device) -> ResidentPatches:
        """A pyramid of each image at 2.5 m (preferred), 1.6 m and its own GSD; larger images are drawn more often."""
        pixels: list[Tensor] = []
        valid: list[NDArray[np.bool_] | None] = []
        shares: list[float] = []
        display: list[bool] = []
        for image in images:
            read = None
            for gsd, preference in _levels(image, size_px):
                read = image.read() if read is None else read
                level = resample(read, gsd)
                pixels.append(torch.from_numpy(level.pixels).to(device).half().permute(1, 2, 0))
                valid.append(None if level.valid.all() else level.valid)
                shares.append(preference * float(level.valid.sum()) ** 0.5)
                display.append(level.display)
        try:
            crops = Crops.of(pixels, valid, _shares(shares, size_px), size_px, EACH)
        except ValueError:
            raise _no_patch(size_px) from None
        return cls(crops, torch.tensor(display, device=device))

    def draw(self, seeds: Seeds, batch: int) -> tuple[Tensor, Tensor]:
        """As `PatchSource.draw`."""
        draws = seeds.draws(self.display.device, _PLACES)
        patches, image = self.crops.draw(draws.shares(batch, 2 + EACH))
        return patches.float(), self.display[image]


@dataclass(frozen=True)
class StoredPatches:
    """As `ResidentPatches`, for more images than memory holds: each is read when it is drawn, the last ones stay.

    `levels` give an image at one GSD when called, `shares` say how often each is drawn, summed up.
    """

    levels: Sequence[Callable[[], HRImage]]
    shares: NDArray[np.float64]
    size_px: int
    device: torch.device
    waits: bool = True

    @classmethod
    def of(cls, images: Sequence[Image], size_px: int, device: torch.device, kept: int = 64) -> StoredPatches:
        """`kept`: how many levels stay in memory."""
        levels: list[Callable[[], HRImage]] = []
        shares: list[float] = []
        read = lru_cache(maxsize=kept)(lambda number, gsd: _rounded(resample(images[number].read(), gsd)))
        for number, image in enumerate(images):
            for gsd, preference in _levels(image, size_px):
                h, w = _size_at(image, gsd)
                levels.append(partial(read, number, gsd))
                shares.append(preference * float(h * w) ** 0.5)
        return cls(levels, np.cumsum(_shares(shares, size_px)), size_px, device)

    def draw(self, seeds: Seeds, batch: int) -> tuple[Tensor, Tensor]:
        """As `PatchSource.draw`."""
        shares = seeds.draws(torch.device("cpu"), _PLACES).shares(batch, 2 + EACH)
        rng = seeds.rng(_AGAIN)
        drawn = [self._patches(share, rng) for share in shares.numpy()]
        patches = torch.stack([patch for patch, _ in drawn])
        return patches.to(self.device), torch.tensor([display for _, display in drawn], device=self.device)

    def _patches(self, share: NDArray[np.float64], rng: np.random.Generator) -> tuple[Tensor, bool]:
        upwards, leftwards, swapped = (bool(bit) for bit in turn_bits(torch.tensor(share[1])))
        for _ in range(1000):
            number = min(int(np.searchsorted(self.shares, share[0], side="right")), len(self.levels) - 1)
            image = self.levels[number]()
            windows = [self._window(image, place) for place in share[2:]]
            if all(image.valid[window].all() for window in windows):
                break
            share = rng.random(len(share))
        else:
            raise _no_patch(self.size_px)
        x = torch.from_numpy(np.stack([image.pixels[(slice(None), *window)] for window in windows]))
        x = x.flip([axis for axis, turned in ((-2, upwards), (-1, leftwards)) if turned])
        return x.mT if swapped else x, image.display

    def _window(self, image: HRImage, place: float) -> tuple[slice, slice]:
        rows, columns = (n - self.size_px + 1 for n in image.valid.shape)
        row, column = divmod(int(place * (rows * columns)), columns)
        return slice(row, row + self.size_px), slice(column, column + self.size_px)


def _levels(image: Image, size_px: int) -> list[tuple[float, float]]:
    """(GSD, preference) of an image's levels, none of them smaller than a patch, none twice."""
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for gsd, preference in _LEVELS[image.resample]:
        size = _size_at(image, gsd or image.gsd_m)
        if min(size) >= size_px and size not in found:
            found[size] = gsd or image.gsd_m, preference
    return list(found.values())


def _size_at(image: Image, gsd_m: float) -> tuple[int, int]:
    h, w = image.size
    ratio = gsd_m / image.gsd_m
    return (round(h / ratio), round(w / ratio)) if ratio >= 1.3 else (h, w)


def _rounded(image: HRImage) -> HRImage:
    """With the digits that images on the device have."""
    pixels = image.pixels.astype(np.float16).astype(np.float32)
    return HRImage(image.name, image.gsd_m, pixels, image.valid, image.display, image.resample)


def _shares(weights: Sequence[float], size_px: int) -> NDArray[np.float64]:
    """Weights as shares (L,)."""
    if not weights:
        raise ConfigError(f"data: no image is as large as a patch, {size_px} × {size_px} pixels; lower lr_px")
    if not sum(weights):
        raise _no_patch(size_px)
    return np.array(weights) / sum(weights)


def _no_patch(size_px: int) -> ConfigError:
    return ConfigError(f"data: found no patch of {size_px} pixels without gaps (nodata_at_ends)")


def with_radiometry(x: Tensor, display: Tensor, radiometry: Radiometry, seeds: Seeds) -> Tensor:
    """Patches (B, P, 3, H, W) in [0, 1] as reflectance; `display` (B,) says which were made for the eye."""
    if radiometry == "mixed":
        return random_radiometry(x, display, seeds.draws(x.device, _RADIOMETRY))
    if radiometry == "published":
        return torch.where(display.view(-1, 1, 1, 1, 1), power_law(x, GAMMA_RGB), x)
    return x


def random_radiometry(x: Tensor, display: Tensor, draws: Draws) -> Tensor:
    """Imagery in [0, 1] (B, P, 3, H, W) as the reflectance of some scene: mostly dark as Sentinel-2 is, some bright.

    Pictures for the eye, where `display` (B,), go through the harmonisation's power law with an exponent that varies
    (from the published one to none at all); then everything gets a random gain and offset, a little different per band.
    `x` is overwritten.
    """
    batch = len(x)
    kind = draws.uniform(0, 1, batch)
    some, most = draws.uniform(1.0, 2.2, batch), draws.uniform(2.2, 3.4, batch)
    exponent = torch.where(kind < 0.15, 1.0, torch.where(kind < 0.4, some, most))[:, None]
    exponent = torch.where(display[:, None], exponent * draws.uniform(0.95, 1.05, batch, 3), 1.0)
    changed = draws.happens(0.8, batch)[:, None]
    gain = draws.log_uniform(0.4, 1.6, batch)[:, None]
    dark, bright = draws.uniform(0, 0.1, batch) ** 1.5, draws.uniform(0, 0.25, batch)
    offset = torch.where(draws.happens(0.7, batch), dark, bright)[:, None]
    gain = torch.where(changed, gain * draws.uniform(0.85, 1.15, batch, 3), 1.0)
    offset = torch.where(changed, offset * draws.uniform(0.85, 1.15, batch, 3), 0.0)

    def per_channel(value: Tensor) -> Tensor:
        return value[:, None, :, None, None]

    x = x.clamp_(min=1e-8).log_().mul_(per_channel(exponent)).exp_()  # faster than a power
    return x.mul_(per_channel(gain)).add_(per_channel(offset)).clamp_(0, 1)
