"""A published cube opened for those who only read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from difffusr.pipeline.readers.access.facts import CubeFacts, Missing
from difffusr.pipeline.readers.access.mosaics import mosaic
from difffusr.pipeline.readers.access.points import sample


def open_cube(url: str, storage_options: Mapping[str, Any] | None = None) -> OpenCube:
    """Open a published cube, of UTM zones or of one CRS, in the state that its readers see now.

    Two requests, however large it is. The state stays, whatever is published later.

    Args:
        url: of the cube: a path, or any URL that fsspec knows, such as s3://bucket/cube.zarr or icechunk+s3://….
        storage_options: passed to the file system.

    Raises:
        StoreError: there is no cube, or the store cannot be read.
    """
    return OpenCube.at(url, storage_options)


class OpenCube(CubeFacts):
    """A published cube, its pixels under points, and areas of it. `open_cube` makes it."""

    def sample(
        self,
        points: Any,
        bands: str | Sequence[str] | None = None,
        periods: str | Sequence[str] | None = None,
        *,
        crs: str | None = None,
        missing: Missing = "raise",
    ) -> xr.Dataset:
        """The pixels under some points, see `sample`."""
        return sample(self, points, bands, periods, crs=crs, missing=missing)

    def mosaic(
        self,
        *,
        bbox: Sequence[float] | None = None,
        area: Any = None,
        crs: str | None = None,
        resolution: float | None = None,
        period: str | Sequence[str] | None = None,
        bands: str | Sequence[str] | None = None,
        variable: str = "reflectance",
        missing: Missing = "raise",
    ) -> xr.DataArray:
        """An area in one CRS over all zones, see `mosaic`."""
        return mosaic(
            self, bbox=bbox, area=area, crs=crs, resolution=resolution, period=period, bands=bands,
            variable=variable, missing=missing,
        )  # fmt: skip
