"""Weights that ship with the package, checked against their sha256."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from typing import Literal

from difffusr.kernels.sampling.settings import Sampling
from difffusr.kernels.weights.checkpoints import WeightsError


def shipped(name: str, stage: Literal["stage1", "fusion"]) -> str:
    """Path of weights that ship with the package, checked against their sha256.

    Raises:
        WeightsError: the file is missing or altered.
    """
    folder = resources.files("difffusr.kernels.weights")
    entry = json.loads(folder.joinpath("index.json").read_text())[name][stage]
    path = folder.joinpath(entry["file"])
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); install the package again") from None
    if found != entry["sha256"]:
        raise WeightsError(
            f"{path}: sha256 is {found[:12]}…, expected {entry['sha256'][:12]}…; install the package again"
        )
    return str(path)


def shipped_sampling(name: str = "small") -> Sampling:
    """How weights that ship with the package are meant to be sampled."""
    index = json.loads(resources.files("difffusr.kernels.weights").joinpath("index.json").read_text())
    return Sampling(**index[name].get("sampling", {}))
