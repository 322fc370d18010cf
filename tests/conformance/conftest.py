"""Fixtures of the conformance tests: the published numbers, their tolerances, and one thread.

The numbers live outside the repository, in `shared/conformance` beside the checkout; without them these tests skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from beside import SHARED
from safetensors.torch import load_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Fixture:
    """One folder of published numbers: inputs, expected outputs, weights, tolerances."""

    folder: Path
    entry: dict[str, Any]  # its entry of manifest.json
    arrays: dict[str, np.ndarray]  # io.npz

    def tensor(self, name: str) -> Tensor:
        """An array of io.npz as a tensor, in its stored dtype."""
        return torch.from_numpy(np.ascontiguousarray(self.arrays[name]))

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose name starts with a prefix, by the rest of the name."""
        return {name[len(prefix) :]: self.tensor(name) for name in self.arrays if name.startswith(prefix)}

    def weights(self) -> dict[str, Tensor]:
        """weights.safetensors, half precision upcast to float32."""
        loaded = load_file(self.folder / "weights.safetensors")
        return {key: value.float() if value.dtype == torch.float16 else value for key, value in loaded.items()}

    def tolerance(self, name: str = "default") -> float:
        """The stated maximum absolute difference of an output; "default" where it has none of its own."""
        stated = self.entry["tolerance"]
        value = stated.get(name, stated["default"])
        return float(str(value).split()[0])  # some are a number and a remark

    def check(self, got: Tensor | np.ndarray, name: str, tolerance: float | None = None) -> None:
        """Assert that a result equals an array of io.npz in shape, and in value within the stated tolerance."""
        actual, expected = np.asarray(torch.as_tensor(got).detach()), self.arrays[name]
        assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
        limit = self.tolerance(name) if tolerance is None else tolerance
        difference = float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())
        assert difference <= limit, f"{name}: off by {difference:.3g}, allowed {limit:.3g}"


class Conformance:
    """The folder of published numbers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        entries = json.loads((root / "manifest.json").read_text())["fixtures"]
        self._entries = {entry["name"]: entry for entry in entries}

    def __call__(self, name: str) -> Fixture:
        """A fixture by the name of its folder, for example "02_degradation_encoder"."""
        folder = self.root / name
        with np.load(folder / "io.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        return Fixture(folder, self._entries[name], arrays)

    def recipe(self) -> ModuleType:
        """The module that makes pseudo-random weights from (seed, key, shape)."""
        spec = importlib.util.spec_from_file_location("seed_recipe", self.root / "seed_recipe.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def fill(self, module: nn.Module, fixture: Fixture, prefix: str = "") -> None:
        """Give a module the recipe's weights, tensor by tensor; keys are `prefix` + the module's own.

        Tensors for which the recipe says to keep the real value stay as the module made them.
        """
        recipe, stated = self.recipe(), fixture.entry["recipe"]
        with torch.no_grad():
            for key, tensor in module.state_dict().items():
                value = recipe.tensor(stated["seed"], prefix + key, tuple(tensor.shape), stated["gains"])
                if value is not None:
                    tensor.copy_(torch.from_numpy(value))

    def layout(self) -> dict[str, Any]:
        """Keys, shapes and dtypes of the published state dicts (state-dict-layout.json)."""
        layout: dict[str, Any] = json.loads((self.root.parent / "state-dict-layout.json").read_text())
        return layout


@pytest.fixture(scope="session")
def conformance() -> Conformance:
    """`conformance("02_degradation_encoder")` → its `Fixture`; skips without the numbers."""
    root = SHARED / "conformance"
    if not (root / "manifest.json").is_file():
        pytest.skip(f"the published numbers are not at {root}")
    return Conformance(root)


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter a program takes as long whatever its size."""
    if "TRITON_INTERPRET" in os.environ:
        from difffusr.kernels.networks.fused import triton_forms

        monkeypatch.setattr(triton_forms, "_TILE", 1 << 14)
        monkeypatch.setattr(triton_forms, "_strip", lambda height, width: (64, 64))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums come out in one order, and the tests leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
