"""The published numbers, their tolerances, and the weights that belong to them.

They live outside the repository, in `shared/conformance` beside the checkout.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from beside import SHARED
from safetensors.torch import load_file
from torch import Tensor, nn

from difffusr.kernels.networks.unet import DiffusionUNet

#: Where they are, if they are there.
PLACE = SHARED / "conformance"


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

    def difference(self, got: Tensor | np.ndarray, name: str) -> float:
        """The largest absolute difference of a result, on any device, from an array of io.npz of the same shape."""
        actual, expected = np.asarray(torch.as_tensor(got).detach().cpu()), self.arrays[name]
        assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, expected {expected.shape}"
        return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max())

    def check(self, got: Tensor | np.ndarray, name: str, tolerance: float | None = None) -> None:
        """Assert that a result equals an array of io.npz in shape, and in value within the stated tolerance."""
        limit = self.tolerance(name) if tolerance is None else tolerance
        difference = self.difference(got, name)
        assert difference <= limit, f"{name}: off by {difference:.3g}, allowed {limit:.3g}"


class Conformance:
    """The folder of published numbers."""

    def __init__(self, root: Path = PLACE) -> None:
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


def unet(fixture: Fixture, weights: dict[str, Tensor]) -> DiffusionUNet:
    """The diffusion network of a fixture's sizes, with weights."""
    given = fixture.entry["constructor"]
    net = DiffusionUNet(
        inner_channels=given["inner_channel"],
        norm_groups=given["norm_groups"],
        channel_mults=given["channel_mults"],
        attn_strides=given["attn_strides"],
        res_blocks=given["res_blocks"],
        fold=given["fold"],
    )
    net.load_state_dict(weights)
    return net.eval()
