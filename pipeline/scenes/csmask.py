"""The network of `ukis-csmask`, an optional package: whether it is there, its version, what it finds in an image."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.ground.errors import ConfigError

_PACKAGE: Final = "ukis_csmask"

#: Side in pixels of what the network sees at a time.
_TILE_PX: Final = 256

#: Images that the threads of a process have in work at a time: a whole tile at 60 m takes 1.1 GB.
_IN_WORK: Final = threading.BoundedSemaphore(max(1, min(4, os.cpu_count() or 1)))


def check_package() -> None:
    """Raise ConfigError unless the network is installed."""
    if not (_is_installed(_PACKAGE) and _is_installed("onnxruntime")):
        raise ConfigError("scenes.masks: csmask needs the package ukis-csmask: pip install 'difffusr[csmask]'")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def network_version() -> str:
    """The version that the network's weights state, "" where the package is not installed."""
    if not _is_installed(_PACKAGE):
        return ""
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        about = Path(folder) / "model_6b_l2a.json"
        if about.is_file():
            return str(json.loads(about.read_text())["model"]["version"])
    raise ConfigError(f"scenes.masks: the package {_PACKAGE} has no weights for L2A; install ukis-csmask 1.0 or newer")


def run_network(image: Mapping[str, NDArray[np.float32]]) -> NDArray[np.uint8]:
    """The network's classes: 0 ground, 1 cloud, 2 shadow.

    On one core and never on a GPU, so that every process finds the same.

    Args:
        image: by the network's name of a band, (h, w) reflectance.

    Raises:
        ConfigError: the package is not installed.
    """
    check_package()
    from ukis_csmask.mask import CSmask

    pixels = np.stack(list(image.values()), axis=-1)
    height, width = pixels.shape[:2]
    rest = [(0, max(_TILE_PX - side, 0)) for side in (height, width)]
    pixels = np.pad(pixels, [*rest, (0, 0)], mode="symmetric")
    with _IN_WORK:
        found = CSmask(
            pixels,
            band_order=list(image),
            product_level="l2a",
            intra_op_num_threads=1,
            inter_op_num_threads=1,
            providers=["CPUExecutionProvider"],
        )
    classes: NDArray[np.uint8] = found.csm[:height, :width, 0]
    return classes
