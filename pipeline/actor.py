"""SuperResolver: the Ray actor that holds both models and turns batches of read chips into 2.5 m chips."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.bands import GROUPS, SCALE
from kernels.model import Sampling, load_model
from kernels.noise import ground_noise
from pipeline.config import RunConfig

#: DN per unit of reflectance in the cube.
DN_SCALE = 10_000

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
        model = config.model
        self.model = load_model(model.preset, model.stage1, model.fusion, sampling_of(config), self.device)

    def __call__(self, batch: Batch) -> Batch:
        """Super-resolve the chips of a batch that were read; those that failed pass through.

        Args:
            batch: columns as `run.read_row` makes them.

        Returns:
            the same without the native bands, with `dn`: (B, 12, 4n, 4n) uint16, reflectance × 10⁴ clipped to
            [1, 65535], all zero for a chip that failed.
        """
        count, size = len(batch["error"]), batch["quality"].shape[-1] * SCALE
        out = np.zeros((count, len(GROUPS[10]) + len(GROUPS[20]) + len(GROUPS[60]), size, size), np.uint16)
        readable = [i for i in range(count) if not batch["error"][i]]
        for start in range(0, len(readable), self.batch):
            chosen = readable[start : start + self.batch]
            out[chosen] = self.super_resolve(batch, chosen)
        kept = {name: column for name, column in batch.items() if not name.startswith(("dn", "valid"))}
        return {**kept, "dn": out}

    def super_resolve(self, batch: Batch, chosen: list[int]) -> NDArray[np.uint16]:
        """(len(chosen), 12, 4n, 4n) uint16 DN of some chips of a batch.

        A batch that is not full is filled up with copies: a network's last digits may depend on its batch size, and a
        chip must not depend on how chips happened to be grouped.
        """
        rows = chosen + [chosen[-1]] * (self.batch - len(chosen))
        bands = {gsd: torch.from_numpy(batch[f"dn{gsd}"][rows].astype(np.float32) / DN_SCALE) for gsd in GROUPS}
        valid = {gsd: torch.from_numpy(batch[f"valid{gsd}"][rows] > 0)[:, None] for gsd in GROUPS}
        side = batch["quality"].shape[-1] * SCALE
        noise = torch.stack(
            [
                ground_noise(
                    self.seed,
                    int(batch["epsg"][i]),
                    int(batch["pixel_row"][i]),
                    int(batch["pixel_col"][i]),
                    side,
                    side,
                    device=self.device,
                )
                for i in rows
            ]
        )
        reflectance = self.model(bands, valid, noise)[: len(chosen)]
        dn = (reflectance * DN_SCALE).round_().clamp_(1, 65535)
        return dn.to(torch.int32).cpu().numpy().astype(np.uint16)


def sampling_of(config: RunConfig) -> Sampling:
    """How a configuration runs the models."""
    model = config.model
    return Sampling(model.sampler_steps, model.consistency, config.compute.precision, denoised=model.preset == "small")
