"""The weights that ship with the package, and which files a preset uses; needs no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from difffusr.kernels.sampling import Sampling
from difffusr.kernels.weights.errors import WeightsError

#: "small": the weights that ship with the package. "published": checkpoints given by the caller.
Preset = Literal["small", "published"]

_FOLDER = resources.files("difffusr.kernels.weights")


def shipped(name: str, stage: Literal["stage1", "fusion"]) -> str:
    """Path of weights that ship with the package, checked against their sha256.

    Raises:
        WeightsError: the file is missing or altered.
    """
    entry = _index()[name][stage]
    path = Path(str(_FOLDER.joinpath(entry["file"])))
    found = _sha256(path, "; install the package again")
    if found != entry["sha256"]:
        raise WeightsError(
            f"{path}: sha256 is {found[:12]}…, expected {entry['sha256'][:12]}…; install the package again"
        )
    return str(path)


def shipped_sampling(name: str = "small", sampler: str | None = None) -> Sampling:
    """The sampling that shipped weights are meant for; by one of `SAMPLERS`, if it is named.

    Few large steps leave less of the noise that they begin with than many small ones, so "fast" may have a temperature
    of its own, at which its results are as near the truth and as rich in detail.
    """
    known = _index()[name]
    own = Sampling(**known.get("sampling", {}))
    return own if sampler is None else replace(own.by(sampler), **known.get("samplers", {}).get(sampler, {}))


def weight_files(preset: Preset, stage1: str | None, fusion: str | None) -> tuple[str, str]:
    """Where both stages' weights are: as given, else the paths of the shipped ones.

    Raises:
        WeightsError: "published" without both files, or a shipped file that is missing or altered.
    """
    if preset == "published":
        if stage1 is None or fusion is None:
            raise WeightsError("preset 'published' needs a stage1 and a fusion checkpoint")
        return stage1, fusion
    return stage1 or shipped("small", "stage1"), fusion or shipped("small", "fusion")


def files_sha256(preset: Preset, stage1: str | None, fusion: str | None) -> dict[str, str]:
    """sha256 of the files of both stages, `stage1` and `fusion`; what is in the files is not checked.

    Raises:
        WeightsError: as `weight_files`, or a file that cannot be read.
    """
    first, second = weight_files(preset, stage1, fusion)
    return {"stage1": _sha256(Path(first)), "fusion": _sha256(Path(second))}


def _index() -> dict[str, Any]:
    index: dict[str, Any] = json.loads(_FOLDER.joinpath("index.json").read_text())
    return index


def _sha256(path: Path, advice: str = "") -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}){advice}") from None
