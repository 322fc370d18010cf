"""An image in memory that a training can draw from."""

from __future__ import annotations

from dataclasses import dataclass

from difffusr.pipeline.weights.training.imagery import HRImage


@dataclass(frozen=True)
class Held:
    """A `patches.Image`."""

    image: HRImage
    resample: str = "none"

    @property
    def gsd_m(self) -> float:
        return self.image.gsd_m

    @property
    def size(self) -> tuple[int, int]:
        return self.image.valid.shape

    def read(self) -> HRImage:
        return self.image
