"""Scenes whose pixels are arrays in memory instead of files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS, GROUPS, GSD_M
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.scenes import masks, scene_window
from difffusr.pipeline.scenes.item import Asset, Scene

Pixels = Mapping[str, NDArray[np.uint16]]


def window_of(chip_px: int) -> PixelWindow:
    """The window of a chip of so many pixels of 10 m."""
    return PixelWindow(0, 0, 4 * chip_px, 4 * chip_px)


def remembered_scene(name: str, day: int, datatake: str | None = None) -> Scene:
    """A scene without files; each day is another pass."""
    assets = {band: Asset(f"/{name}/{band}", float(GSD_M[band]), 0, 0, None, None, "GTiff") for band in BANDS}
    return Scene(
        name, "c", dt.datetime(2023, 6, day, 10, tzinfo=dt.UTC), "32UNA", 32632, "05.09", 0.0, "local",
        shapely.box(9, 50, 10, 51), assets, Asset(f"/{name}/SCL", 20.0, 0, 0, None, None, "GTiff"), None,
        datatake, None, None, None,
    )  # fmt: skip


def remember(monkeypatch: pytest.MonkeyPatch, pixels: Sequence[Pixels]) -> list[Scene]:
    """Scenes with these pixels, by band and "SCL" on native grids, for whoever reads them; one a day."""
    scenes = [remembered_scene(f"S2A_{number}", number + 1) for number in range(len(pixels))]
    by_id = {scene.id: held for scene, held in zip(scenes, pixels, strict=True)}
    for module in (scene_window, masks):
        monkeypatch.setattr(module, "read_window", lambda scene, band, window: by_id[scene.id][band].copy())
    return scenes


def flat(chip_px: int, dn: int = 1000, scl: int = 4) -> dict[str, NDArray[np.uint16]]:
    """Ground of one DN in all bands, and of one class."""
    sizes = {band: chip_px * 10 // gsd for gsd, bands in GROUPS.items() for band in bands}
    out = {band: np.full((size, size), dn, np.uint16) for band, size in sizes.items()}
    return {**out, "SCL": np.full((chip_px // 2,) * 2, scl, np.uint16)}


def clouded(pixels: Pixels, rows_m: tuple[int, int], cols_m: tuple[int, int], dn: int = 9000, scl: int = 9) -> Pixels:
    """The same with a cloud over a rectangle, in metres, told by the classification unless `scl` is 0."""
    out = {name: values.copy() for name, values in pixels.items()}
    for name, values in out.items():
        gsd = 20 if name == "SCL" else GSD_M[name]
        here = tuple(slice(start // gsd, -(-stop // gsd)) for start, stop in (rows_m, cols_m))
        if name != "SCL" or scl:
            values[here] = scl if name == "SCL" else dn
    return out
