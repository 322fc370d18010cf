"""SuperResolver: the Ray actor that holds both models and turns batches of read chips into 2.5 m chips."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.bands import GROUPS, SCALE
from kernels.model import Sampling, load_model, shipped_sampling
from kernels.noise import ground_noise
from pipeline.config import RunConfig
from pipeline.storage import first_line

log = logging.getLogger("difffusr.actor")

#: DN per unit of reflectance in the cube.
DN_SCALE = 10_000

#: Whole numbers per unit of reflectance of a standard deviation, and the one that stands for "none": 0 is a deviation.
#: Greater ones than fit below it are told as the greatest that does.
STD_SCALE, STD_FILL = 100_000, 65_535

#: Rows of a batch, as Ray Data hands them over: column name → stacked arrays, one entry a chip.
Batch = dict[str, NDArray[Any]]


class SuperResolver:
    """Loads both models once and super-resolves batch after batch; pinned to a GPU where the run has GPUs."""

    def __init__(self, config: RunConfig) -> None:
        torch.set_num_threads(config.compute.cpus_per_actor)
        # The same chip must come out the same on every actor: no algorithm may be picked by timing.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batch = config.compute.batch
        self.seed = config.model.seed
        self.samples = config.model.uncertainty_samples
        model = config.model
        self.model = load_model(model.preset, model.stage1, model.fusion, sampling_of(config), self.device)

    def __call__(self, batch: Batch) -> Batch:
        """Super-resolve the chips of a batch that were read; those that failed pass through.

        Args:
            batch: columns as `chip_stream.read_chips` makes them.

        Returns:
            the same without the native bands, with `dn`: (B, 12, 4n, 4n) uint16, reflectance × 10⁴ clipped to
            [1, 65535], all zero for a chip that failed; and, where the run asks for uncertainty, `std`: (B, 12, 4n, 4n)
            uint16, standard deviation of the samples' reflectance × `STD_SCALE` clipped to [0, 65534].
        """
        count, size = len(batch["error"]), batch["quality"].shape[-1] * SCALE
        shape = count, len(GROUPS[10]) + len(GROUPS[20]) + len(GROUPS[60]), size, size
        out = {name: np.zeros(shape, np.uint16) for name in (("dn", "std") if self.samples else ("dn",))}
        readable = [i for i in range(count) if not batch["error"][i]]
        errors = batch["error"].copy()
        while readable:
            chosen = readable[: self.batch]
            try:
                for name, values in self.super_resolve(batch, chosen).items():
                    out[name][chosen] = values
            except torch.OutOfMemoryError as error:
                if not self._halve():
                    errors[chosen] = f"super_resolve: {first_line(error)}; not even one chip fits: lower grid.chip_px"
                    readable = readable[len(chosen) :]
                continue
            readable = readable[len(chosen) :]
        kept = {name: column for name, column in batch.items() if not name.startswith(("dn", "valid"))}
        return {**kept, "error": errors, **out}

    def _halve(self) -> bool:
        """From now on at most half as many chips at a time, for the device's memory is full; False where that is
        none."""
        torch.cuda.empty_cache()
        if self.batch == 1:
            return False
        self.batch //= 2
        log.warning("out of memory on %s: from now on batches of %d (compute.batch)", self.device, self.batch)
        return True

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        """`dn` and perhaps `std`, (len(chosen), 12, 4n, 4n) uint16, of some chips of a batch.

        A batch that is not full is filled up with copies: a network's last digits may depend on its batch size, and a
        chip must not depend on how chips happened to be grouped.
        """
        rows = chosen + [chosen[-1]] * (self.batch - len(chosen))
        bands = {gsd: torch.from_numpy(batch[f"dn{gsd}"][rows].astype(np.float32) / DN_SCALE) for gsd in GROUPS}
        valid = {gsd: torch.from_numpy(batch[f"valid{gsd}"][rows] > 0)[:, None] for gsd in GROUPS}
        if not self.samples:
            reflectance = self.model(bands, valid, self.noise(batch, rows))
            return {"dn": _whole(reflectance[: len(chosen)] * DN_SCALE, 1, 65535)}
        noises = (self.noise(batch, rows, sample) for sample in range(self.samples))
        reflectance, std = self.model.with_spread(bands, valid, noises)
        return {
            "dn": _whole(reflectance[: len(chosen)] * DN_SCALE, 1, 65535),
            "std": _whole(std[: len(chosen)] * STD_SCALE, 0, STD_FILL - 1),
        }

    def noise(self, batch: Batch, rows: list[int], sample: int = 0) -> Tensor:
        """(len(rows), 3, 4n, 4n) initial noise of some chips of a batch.

        Sample i of a run is stream i of its seed's ground noise (`kernels.noise`), and sample 0 is the result itself.
        Every sample's noise belongs to the ground: chips that overlap agree on their spread as on their pixels.
        """
        side = batch["quality"].shape[-1] * SCALE
        return torch.stack(
            [
                ground_noise(
                    self.seed,
                    int(batch["epsg"][i]),
                    int(batch["pixel_row"][i]),
                    int(batch["pixel_col"][i]),
                    side,
                    side,
                    stream=sample,
                    device=self.device,
                )
                for i in rows
            ]
        )


def _whole(values: Tensor, least: int, greatest: int) -> NDArray[np.uint16]:
    """Values as whole numbers within two limits, on the CPU."""
    return values.round().clamp_(least, greatest).to(torch.int32).cpu().numpy().astype(np.uint16)


def sampling_of(config: RunConfig) -> Sampling:
    """How a configuration runs the models: as it says, and else as its preset is meant to be.

    `model.sampler` decides on solver and steps alone: the small weights keep their own temperature and last estimate
    under "reference", too, and with the published weights "reference" is the published sampler.
    """
    model = config.model
    own = shipped_sampling() if model.preset == "small" else Sampling()
    if model.sampler is not None:
        own = own.by(model.sampler)
    return replace(
        own,
        steps=own.steps if model.sampler_steps is None else model.sampler_steps,
        consistency=model.consistency,
        precision=config.compute.precision,
        temperature=own.temperature if model.temperature is None else model.temperature,
    )
