"""Whole files, as the package reads them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from torch import Tensor

from safetensors import safe_open


def load_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file by name."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def save(*_: object, **__: object) -> NoReturn:
    """Not here: nothing is written."""
    raise NotImplementedError("safetensors is not installed: its stand-in only reads")
