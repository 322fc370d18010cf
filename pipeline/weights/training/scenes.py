"""12-band scenes of Sentinel-2 on native grids, from folders and from runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from difffusr.kernels.bands import BANDS, GROUPS
from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.ground.pixels import Quality

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import SceneSource

#: Bands of the stacks of the DSen2 testing data, in their order, by GSD in metres.
_STACKS: Final = {
    10: ("B04", "B03", "B02", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09"),
}


@dataclass(frozen=True)
class NativeScene:
    """A 12-band image on native grids: `bands` maps names to float32 (n, n') reflectance."""

    name: str
    bands: Mapping[str, Tensor] = field(repr=False)


def load_scenes(sources: Sequence[SceneSource], root: Path) -> tuple[list[NativeScene], list[NativeScene]]:
    """The scenes of all sources: (for training, held out).

    Two layouts are known in folders: one GeoTIFF a band (B01.tif …), and DSen2's im10/im20/im60 stacks (L1C). Scenes
    with pixels without data are left out. Raises ConfigError or ReadError, which name the key.
    """
    training: list[NativeScene] = []
    held_out: list[NativeScene] = []
    for i, source in enumerate(sources):
        key = f"data[{i}]"
        scenes = list(_from_run(source) if source.run else _from_folder(source, root, key))
        if not scenes:
            raise ConfigError(f"{key}: {source.run or root / str(source.path)}: no 12-band scene without gaps there")
        names = sorted({scene.name for scene in scenes})
        every = source.held_out_every
        for scene in scenes:
            turn = every is not None and names.index(scene.name) % every == every - 1
            kept = turn or any(fnmatch(scene.name, pattern) for pattern in source.held_out)
            (held_out if kept else training).append(scene)
    if not training:
        raise ConfigError("data: every scene is held out, none is left to learn from")
    return training, held_out


def _from_folder(source: SceneSource, root: Path, key: str) -> Iterator[NativeScene]:
    folder = root / str(source.path)
    folders = sorted(root.glob(str(source.path))) if "*" in str(source.path) else [folder]
    if not folders or not all(path.is_dir() for path in folders):
        raise ConfigError(f"{key}.path: {folder}: no such folder")
    found = sorted(p.parent for base in folders for name in ("B12.tif", "im60.tif") for p in base.rglob(name))
    if not found:
        raise ConfigError(f"{key}.path: {folder}: no 12-band scenes there (folders with B01.tif … or im10.tif …)")
    for path in found:
        scene = read_native(path, key)
        if all(bool((band > 0).all()) for band in scene.bands.values()):
            yield scene


def _from_run(source: SceneSource) -> Iterator[NativeScene]:
    """Cloudless, complete chips of a run configuration, spread evenly over its area; names are zone, row and column.

    Alone among the sources, it needs what plans and reads a run.
    """
    from difffusr.pipeline.config import load_config
    from difffusr.pipeline.geo import grid_of
    from difffusr.pipeline.plan import make_plan
    from difffusr.pipeline.scenes import ChipRules, find_scenes, read_chip

    config = load_config(str(source.run))
    scenes = find_scenes(config)
    plan = make_plan(config, scenes, "training")
    by_id, grid = {scene.id: scene for scene in scenes}, grid_of(config)
    whole = [chip for chip in plan.chips if chip.clear >= 0.999]
    for chip in whole[:: max(1, len(whole) // source.chips)][: source.chips]:
        read = read_chip(
            grid.chip_window(chip.index), [by_id[name] for name in chip.scenes[:1]], ChipRules(allow_cloudy=False)
        )
        if (read.quality == Quality.CLEAR).all():
            dn = {band: read.dn[gsd][i] for gsd, names in GROUPS.items() for i, band in enumerate(names)}
            yield NativeScene(
                chip.name.replace("/", "_"),
                {band: torch.from_numpy(dn[band].astype(np.float32)) / 10_000 for band in BANDS},
            )


def read_native(folder: Path, key: str = "data") -> NativeScene:
    """The scene in a folder, reflectance from DN / 10⁴. Raises ReadError if a band is missing or damaged."""
    import rasterio

    bands: dict[str, Tensor] = {}
    try:
        if (folder / "im60.tif").exists():
            for gsd, names in _STACKS.items():
                with rasterio.open(folder / f"im{gsd}.tif") as file:
                    bands |= dict(zip(names, torch.from_numpy(file.read().astype(np.float32)), strict=True))
        else:
            for name in BANDS:
                with rasterio.open(folder / f"{name}.tif") as file:
                    bands[name] = torch.from_numpy(file.read(1).astype(np.float32))
    except (rasterio.errors.RasterioError, ValueError) as error:
        raise ReadError(f"{key}: {folder}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    return NativeScene(folder.name, {name: values / 10_000 for name, values in bands.items()})
