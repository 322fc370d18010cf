"""A scene with the texture of real ground, for chips of the usual size: what is read, sent through the object store and
staged takes as long to decode, copy and compress as the real thing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from test_many_chips import CHIP_PX as SMALL_CHIP_PX
from test_many_chips import OVERLAP_PX as SMALL_OVERLAP_PX
from test_many_chips import world

from difffusr.kernels.bands import BANDS, SCALE

#: 10 m pixels of a chip and of what it shares with the next: as by default.
CHIP_PX, OVERLAP_PX = 192, 24


def textured_world(folder: Path, chips: int, compute: Mapping[str, Any], chip_px: int = CHIP_PX) -> Path:
    """A scene of about so many chips, and a job over it."""
    path = world(folder, round(chips * ((chip_px - OVERLAP_PX) / (SMALL_CHIP_PX - SMALL_OVERLAP_PX)) ** 2))
    for number, file in enumerate(sorted(folder.rglob("B*.tif"))):
        with rasterio.open(file, "r+") as band:
            size = band.height
            pattern = ground(min(size, 1024), np.random.default_rng(number))
            repeats = -(-size // len(pattern))
            band.write(np.tile(pattern, (repeats, repeats))[:size, :size], 1)
    config = yaml.safe_load(path.read_text())
    config |= {"grid": {"chip_px": chip_px, "overlap_px": OVERLAP_PX}, "compute": dict(compute)}
    path.write_text(yaml.safe_dump(config))
    return path


def ground(size: int, rng: np.random.Generator) -> NDArray[np.uint16]:
    """(size, size) DN: fields and slopes, and in each pixel the few DN of noise that a sensor has."""
    fields = gaussian_filter(rng.normal(0, 1, (size, size)), 6, mode="wrap")
    texture = gaussian_filter(rng.normal(0, 1, (size, size)), 1, mode="wrap")
    dn = 1500 + 350 * fields / fields.std() + 80 * texture / texture.std() + rng.normal(0, 8, (size, size))
    return np.clip(np.rint(dn), 1, 20_000).astype(np.uint16)


def super_resolved(seed: int, chip_px: int = CHIP_PX) -> NDArray[np.uint16]:
    """(12, 4 · chip_px, 4 · chip_px) uint16: what a model might make of such ground; as hard to compress as a real
    chip."""
    rng = np.random.default_rng(seed)
    bands = [zoom(ground(chip_px, rng).astype(np.float32), SCALE, order=1) for _ in BANDS]
    noise = rng.normal(0, 2, (SCALE * chip_px,) * 2)
    return np.clip(np.rint(np.stack(bands) + noise), 1, 65535).astype(np.uint16)
