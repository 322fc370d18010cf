"""What is done to a scene's DN so that the scenes of a run look as if one instrument had taken them at one time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GROUPS
from difffusr.pipeline.scenes.granule import FactorField

#: The largest DN of a band.
_DN_MAX = 65534

_Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Correction:
    """Balanced DN = gain · factor · DN + offset, where factor and offset vary over the scene.

    Attributes:
        left, top, side_m: the square over whose corners `offset` is given, in metres of the scene's CRS.
        gain: (12,) float64 in BANDS order.
        offset: (12, 2, 2) float64 DN at the corners: north-west, north-east; south-west, south-east. Bilinear between.
        factor: (12, n, n) float32 what brings reflectance to nadir (`kernels.brdf`), at the nodes of a grid.
        factor_left, factor_top, factor_step_m: of the grid's first node, and between nodes.
        hazy: whether the offset is so large that the scene counts as under cloud.
    """

    left: float
    top: float
    side_m: float
    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    factor: NDArray[np.float32]
    factor_left: float
    factor_top: float
    factor_step_m: float
    hazy: bool = False

    def key(self) -> str:
        """Identifies the correction: 64 hexadecimal digits."""
        return self._key

    @cached_property
    def _key(self) -> str:
        places = (self.left, self.top, self.side_m, self.factor_left, self.factor_top, self.factor_step_m, self.hazy)
        content = hashlib.sha256(repr(places).encode())
        for values in (self.gain, self.offset, self.factor):
            content.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
        return content.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """For the scene table of a cube, lists in BANDS order: gain, offset (DN at the corners of a square of the
        scene's CRS: north-west, north-east, south-west, south-east), and the mean of the factor."""
        return {
            "gain": self.gain.tolist(),
            "offset": self.offset.reshape(-1, 4).tolist(),
            "factor": [round(float(value), 5) for value in self.factor.mean(axis=(1, 2), dtype=np.float64)],
            "square": [self.left, self.top, self.side_m],
            "hazy": self.hazy,
        }

    def scale_and_offset(
        self, band: str, bounds_m: tuple[float, float, float, float], gsd_m: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What a band's DN are multiplied by, and what is added then, at the pixels of a window: (h, w) each.

        Args:
            bounds_m: west, south, east, north in metres of the scene's CRS.
            gsd_m: side of a pixel.
        """
        number = BANDS.index(band)
        factor = FactorField(self.factor_left, self.factor_top, self.factor_step_m, self.factor[number])
        offset = FactorField(self.left, self.top, self.side_m, self.offset[number].astype(np.float32))
        scale = factor.on(bounds_m, gsd_m) * np.float32(self.gain[number])
        return scale, offset.on(bounds_m, gsd_m)

    def corrected(
        self, dn: Mapping[int, NDArray[np.uint16]], bounds_m: tuple[float, float, float, float]
    ) -> dict[int, NDArray[np.uint16]]:
        """Balanced DN of a window, by native GSD as in `Chip`; whole DN, at least 1, and 0 stays "no data".

        `inverted` takes it back.
        """
        return self._each(dn, bounds_m, lambda plane, scale, offset: plane * scale + offset)

    def inverted(
        self, balanced: Mapping[int, NDArray[np.uint16]], bounds_m: tuple[float, float, float, float]
    ) -> dict[int, NDArray[np.uint16]]:
        """DN of a window as they were before `corrected`: (balanced − offset) / (gain · factor); 0 stays "no data".

        Exact where gain · factor is above 1.01. Below that several DN may have become the same balanced DN: they come
        back to within 0.5 / (gain · factor), in whole DN. Lost is only what was clipped: a balanced DN of 1 stands for
        everything that came out lower, 65534 for what came out higher.
        """
        return self._each(balanced, bounds_m, lambda plane, scale, offset: (plane - offset) / scale)

    def _each(
        self,
        planes: Mapping[int, NDArray[np.uint16]],
        bounds_m: tuple[float, float, float, float],
        do: Callable[[_Floats, _Floats, _Floats], _Floats],
    ) -> dict[int, NDArray[np.uint16]]:
        """Something done to every band with its scale and offset, in whole DN."""
        out = {}
        for gsd, bands in GROUPS.items():
            done = []
            for band, plane in zip(bands, planes[gsd], strict=True):
                scale, offset = self.scale_and_offset(band, bounds_m, gsd)
                dn = np.clip(np.rint(do(plane.astype(np.float32), scale, offset)), 1, _DN_MAX)
                done.append(np.where(plane > 0, dn, 0).astype(np.uint16))
            out[gsd] = np.stack(done)
        return out
