"""Masks of cloud and shadow by a network (`ukis-csmask`): made once a scene while planning, kept for whoever reads.

The network sees blue, green, red, near infrared and both short-wave infrared bands at 60 m: at 30 m, which it was
trained for, it takes four times as long, and is hardly better (tests/bench/masks-f1.json).
"""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.ground.errors import ReadError, StoreError
from difffusr.pipeline.scenes.csmask import check_package, run_network
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.mask_classes import Mask, MaskClass
from difffusr.pipeline.scenes.rules import ChipRules
from difffusr.pipeline.scenes.windows import read_overview
from difffusr.pipeline.storage import Storage

log = logging.getLogger("difffusr.masks")

#: Side of a mask's cells in metres: those of the lattice, so that a cell has one class.
STEP_M: Final = 60

#: By the network's name of a band, ours. Without the last two a smaller network is used.
_BANDS: Final = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11", "swir22": "B12"}
_NEEDED: Final = 4

#: By the network's class (ground, cloud, shadow), ours.
_CLASSES: Final = np.array([MaskClass.CLEAR, MaskClass.CLOUD, MaskClass.SHADOW], np.uint8)

#: Masks that a process keeps in memory: 3 MB each, and a chip has at most 16 scenes.
_MASKS_KEPT: Final = 16

_DAMAGED: Final = (ValueError, OSError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)


def mask_of(scene: Scene, rules: ChipRules) -> Mask:
    """A scene's mask: from the rules' folder, else made now, and left there.

    Raises:
        ReadError: a band cannot be read, or lacks.
        ConfigError: it is to be made, and the package is not installed.
        StoreError: the folder cannot be read.
    """
    if not rules.mask_version:
        check_package()
    name = f"masks/{scene.version_key()[:32]}-csmask-{rules.mask_version}-{STEP_M}m.npz"
    return _fetched(_Wanted(name, rules.kept.url if rules.kept else "", scene, rules.kept))


@dataclass(frozen=True)
class _Wanted:
    """A mask: its object's name, and the folder's URL. Scene and folder say how to get it, not which it is."""

    name: str
    url: str
    scene: Scene = field(compare=False)
    folder: Storage | None = field(compare=False)


@lru_cache(maxsize=_MASKS_KEPT)
def _fetched(wanted: _Wanted) -> Mask:
    """Every process has the same mask: the first one that was kept."""
    folder, name = wanted.folder, wanted.name
    if folder is None:
        return made_mask(wanted.scene)
    damaged = False
    if folder.exists(name):
        if (found := _unpacked(folder.read(name))) is not None:
            return found
        damaged = True
        log.warning("%s/%s is damaged: the mask of %s is made again", folder.url, name, wanted.scene.id)
    mask = made_mask(wanted.scene)
    try:
        if damaged:
            folder.write(name, _packed(mask))
        elif not folder.create(name, _packed(mask)):
            return _unpacked(folder.read(name)) or mask
    except StoreError as error:  # who only looks at a plan may not be allowed to write
        log.info("the mask of %s is not kept: %s", wanted.scene.id, error)
    return mask


def _packed(mask: Mask) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, classes=mask.classes, place=np.array([mask.row, mask.col, mask.step_m], np.int64))
    return out.getvalue()


def _unpacked(data: bytes) -> Mask | None:
    """A mask from its object, None where that is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            classes, (row, col, step) = file["classes"], file["place"].tolist()
    except _DAMAGED:
        return None
    sound = classes.dtype == np.uint8 and classes.ndim == 2 and classes.size and classes.max() <= max(MaskClass)
    return Mask(classes, row, col, step) if sound and step == STEP_M else None


def made_mask(scene: Scene, step_m: int = STEP_M) -> Mask:
    """Read a scene's bands at a step in metres, and ask the network.

    Raises:
        ReadError: a band cannot be read, or lacks.
        ConfigError: the package is not installed.
    """
    bands = {name: band for name, band in _BANDS.items() if band in scene.assets}
    if len(bands) < len(_BANDS):  # one of the two in the short-wave infrared is of no use
        bands = dict(list(_BANDS.items())[:_NEEDED])
    if lacking := [band for band in bands.values() if band not in scene.assets]:
        raise ReadError(f"scene {scene.id}: csmask needs {', '.join(lacking)}, which it lacks; leave the scene out")
    seen = {name: Mask(*read_overview(scene, band, step_m), step_m) for name, band in bands.items()}
    frame = max(seen.values(), key=lambda one: one.classes.size)
    dn = {name: one.placed(frame, outside=0) for name, one in seen.items()}
    data: NDArray[np.bool_] = np.all([values > 0 for values in dn.values()], axis=0)
    classes = np.full(data.shape, MaskClass.NO_DATA, np.uint8)
    if data.any():
        rows, cols = (np.flatnonzero(data.any(axis=axis)) for axis in (1, 0))
        here = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        offsets = {name: scene.assets[band].offset_dn for name, band in bands.items()}
        image = {name: _reflectance(values[here], offsets[name], scene.scale) for name, values in dn.items()}
        # At a swath's edge what is at 60 m no data may be data at 10 m.
        classes[here] = np.where(_touched(data[here]), _CLASSES[run_network(image)], MaskClass.NO_DATA)
    return Mask(classes, frame.row, frame.col, step_m)


def _reflectance(dn: NDArray[np.unsignedinteger], offset: int, scale: float) -> NDArray[np.float32]:
    found = np.maximum(dn.astype(np.float32) + np.float32(offset), 0) * np.float32(scale)
    return np.where(dn > 0, found, np.float32(0))


def _touched(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and its neighbours."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    near: NDArray[np.bool_] = np.any(
        [padded[row : row + height, col : col + width] for row in range(3) for col in range(3)], axis=0
    )
    return near
