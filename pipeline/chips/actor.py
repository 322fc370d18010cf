"""SuperResolver: the Ray actor that holds both models and turns batches of read chips into 2.5 m chips."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.images import fill_invalid
from difffusr.kernels.model import SuperResolution, model_from_weights
from difffusr.kernels.networks.fusion import merge_groups
from difffusr.kernels.sampling import ground_noise
from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.pixels import DN_SCALE, STD_FILL, STD_SCALE
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.plan import read_both, sampling_of, weights_errors

log = logging.getLogger("difffusr.actor")

#: Super-resolved chips: whole numbers by name, on the device as int16 with the bits of uint16.
Made = Mapping[str, Tensor | NDArray[np.uint16]]


@dataclass(frozen=True)
class Resolved:
    """A batch that the device has finished.

    Attributes:
        batch: as it was read.
        errors: (B,) why a chip failed, else empty.
        parts: positions of chips in the batch, and these chips super-resolved.
    """

    batch: Batch
    errors: NDArray[Any]
    parts: list[tuple[list[int], Made]]


class SuperResolver:
    """Loads both models once and super-resolves batch after batch; pinned to a GPU where the run has GPUs."""

    def __init__(self, config: RunConfig) -> None:
        torch.set_num_threads(config.compute.cpus_per_actor)  # so many chips at a time, each with one thread
        # The same chip must come out the same on every actor: no algorithm may be picked by timing.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batch = config.compute.batch_on_cores
        self.seed = config.model.seed
        self.samples = config.model.uncertainty_samples
        self.model = self._load(config)

    def __call__(self, batch: Batch) -> Batch:
        """Super-resolve the chips of a batch that were read; those that failed pass through.

        Args:
            batch: columns as `reading.read_chips` makes them.

        Returns:
            the same without the native bands, with `dn`: (B, 12, 4n, 4n) uint16, reflectance × 10⁴ clipped to
            [1, 65535], all zero for a chip that failed or has no data; and, where the run asks for uncertainty,
            `std`: (B, 12, 4n, 4n) uint16, standard deviation of the samples' reflectance × `STD_SCALE` clipped to
            [0, 65534]; 0 for a chip that was skipped: it is not sampled.
        """
        return self.fetch(self.resolve(batch))

    def resolve(self, batch: Batch) -> Resolved:
        """The part of a call that needs the device, in batches that fit its memory.

        A chip without a valid pixel is left out, and one that skips the networks is only enlarged.
        """
        shows = [i for i, error in enumerate(batch["error"]) if not error and batch["quality"][i].any()]
        skipped = {i for i in shows if "skipped" in batch and batch["skipped"][i]}
        readable = [i for i in shows if i not in skipped]
        errors, parts = batch["error"].copy(), [([i], self.enlarge(batch, i)) for i in sorted(skipped)]
        while readable:
            chosen = readable[: self.batch]
            try:
                parts.append((chosen, self.super_resolve(batch, chosen)))
            except torch.OutOfMemoryError as error:
                if not self._halve():
                    errors[chosen] = f"super_resolve: {first_line(error)}; not even one chip fits: lower grid.chip_px"
                    readable = readable[len(chosen) :]
                continue
            readable = readable[len(chosen) :]
        return Resolved(batch, errors, parts)

    def fetch(self, resolved: Resolved) -> Batch:
        """The rest of a call: copies from the device, which may already compute the next batch."""
        batch, parts = resolved.batch, resolved.parts
        kept = {name: column for name, column in batch.items() if not name.startswith(("dn", "valid"))}
        count, size = len(batch["error"]), batch["quality"].shape[-1] * SCALE
        shape = count, len(GROUPS[10]) + len(GROUPS[20]) + len(GROUPS[60]), size, size
        out: Batch = {}
        for name in ("dn", "std") if self.samples else ("dn",):
            if [len(chosen) for chosen, made in parts if name in made] == [count]:
                out[name] = self._on_host(parts[0][1][name])
                continue
            out[name] = np.zeros(shape, np.uint16)
            for chosen, made in parts:
                if name in made:
                    out[name][chosen] = self._on_host(made[name])
        return {**kept, "error": resolved.errors, **out}

    @weights_errors()
    def _load(self, config: RunConfig) -> SuperResolution:
        """The models, run as `compute.execution` says.

        Raises:
            DifffusrError: they are to be fused, and cannot be.
            WeightsError: the weights cannot be used.
        """
        wanted = config.compute.execution
        load = partial(model_from_weights, *read_both(config), sampling_of(config), self.device)
        if wanted == "eager" or (wanted == "auto" and self.device.type == "cpu"):
            return load()
        try:
            self.model = load(execution="fused")
            self.super_resolve(no_image(self.batch, config.grid.chip_px), list(range(self.batch)))
        except torch.OutOfMemoryError:
            pass  # batches are made smaller when chips come
        except (RuntimeError, ImportError) as error:  # no Triton, no C compiler, a device that it does not know
            if wanted == "fused":
                raise DifffusrError(
                    f"the networks cannot be fused here ({first_line(error)}); set compute.execution to 'eager'"
                ) from error
            log.warning("the networks cannot be fused here, and run operation by operation: %s", first_line(error))
            return load()
        return self.model

    def _halve(self) -> bool:
        """The device's memory is full: from now on take half as many chips at a time; False where it was one."""
        torch.cuda.empty_cache()
        if self.batch == 1:
            return False
        self.batch //= 2
        log.warning("out of memory on %s: from now on batches of %d (compute.batch)", self.device, self.batch)
        return True

    def rate(self, size: int, chip_px: int) -> float | None:
        """Chips a second in batches of a size, from synthetic input; None where the device's memory is not enough.

        The result of the batch before stays on the device meanwhile, as it does in a run.
        """
        before, batch = self.batch, no_image(size, chip_px)
        try:
            self.batch = size
            made = [self.super_resolve(batch, list(range(size)))]  # warms up
            begun = time.perf_counter()
            made.append(self.super_resolve(batch, list(range(size))))
            return size / (time.perf_counter() - begun)
        except torch.OutOfMemoryError:
            return None
        finally:
            self.batch = before

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Made:
        """`dn` and perhaps `std`, (len(chosen), 12, 4n, 4n), of some chips of a batch; returns when they are computed.

        On a GPU a partial batch is filled up with copies: a network's last digits may depend on its batch size, and a
        chip must not depend on how chips were grouped. On CPUs each is computed alone.
        """
        alone = self.device.type == "cpu"
        rows = chosen + [chosen[-1]] * (0 if alone else self.batch - len(chosen))
        bands = {gsd: self._reflectance(batch[f"dn{gsd}"][rows]) for gsd in GROUPS}
        valid = {gsd: self._on_device(batch[f"valid{gsd}"][rows])[:, None] > 0 for gsd in GROUPS}
        if not self.samples:
            start = None if self.model.sampling.solver == "none" else self.noise(batch, rows)
            reflectance = self.model(bands, valid, start)
            made = {"dn": _whole(reflectance[: len(chosen)] * DN_SCALE, 1, 65535)}
        else:
            noises = (self.noise(batch, rows, sample) for sample in range(self.samples))
            reflectance, std = self.model.with_spread(bands, valid, noises)
            made = {
                "dn": _whole(reflectance[: len(chosen)] * DN_SCALE, 1, 65535),
                "std": _whole(std[: len(chosen)] * STD_SCALE, 0, STD_FILL - 1),
            }
        self._finish()
        return made

    @torch.inference_mode()
    def enlarge(self, batch: Batch, i: int) -> Made:
        """`dn`, (1, 12, 4n, 4n), of one chip of a batch: every band bicubically, without the networks."""
        side = batch["quality"].shape[-1] * SCALE
        groups = {}
        for gsd in GROUPS:
            valid = self._on_device(batch[f"valid{gsd}"][[i]])[:, None] > 0
            filled = fill_invalid(self._reflectance(batch[f"dn{gsd}"][[i]]), valid)
            groups[gsd] = F.interpolate(filled, size=[side, side], mode="bicubic", align_corners=False)
        made = {"dn": _whole(merge_groups(groups) * DN_SCALE, 1, 65535)}
        self._finish()
        return made

    def _finish(self) -> None:
        """Wait for the device: a failure must be that of these chips, and copies need finished results."""
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def _reflectance(self, dn: NDArray[np.uint16]) -> Tensor:
        """DN as float32 reflectance on the device; only two bytes a value are copied to it."""
        whole = self._on_device(dn.view(np.int16)).to(torch.int32).bitwise_and_(0xFFFF)
        # By a tensor: by a plain number CUDA does not divide but multiplies with the reciprocal.
        return whole.to(torch.float32).div_(torch.tensor(float(DN_SCALE), device=self.device))

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _on_host(self, made: Tensor | NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The device's result as uint16 in this machine's memory. The device goes on meanwhile: the copy has its own
        stream, and goes to pinned memory."""
        if not isinstance(made, Tensor):
            return made
        if made.device.type == "cuda":
            stream, pinned = torch.cuda.Stream(made.device), torch.empty_like(made, device="cpu", pin_memory=True)
            with torch.cuda.stream(stream):
                pinned.copy_(made, non_blocking=True)
            stream.synchronize()
            made = pinned
        whole: NDArray[np.uint16] = made.numpy().view(np.uint16)
        return whole

    def noise(self, batch: Batch, rows: list[int], sample: int = 0) -> Tensor:
        """(len(rows), 3, 4n, 4n) initial noise of some chips of a batch.

        Sample i of a run is stream i of its seed's ground noise (`kernels.sampling.noise`), and sample 0 is the
        result itself. Every sample's noise belongs to the ground: overlapping chips agree on their spread as on their
        pixels.
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
                    kernel=self.device.type == "cuda" and self.model.execution == "fused",
                )
                for i in rows
            ]
        )


def no_image(size: int, chip_px: int) -> Batch:
    """Columns of a batch of chips of noise."""
    rng = np.random.default_rng(0)
    batch: Batch = {name: np.zeros(size, np.int64) for name in ("epsg", "pixel_row", "pixel_col")}
    batch["quality"] = np.ones((size, chip_px, chip_px), np.uint8)
    for gsd, bands in GROUPS.items():
        n = chip_px * 10 // gsd
        batch[f"dn{gsd}"] = rng.integers(1, 10_000, (size, len(bands), n, n)).astype(np.uint16)
        batch[f"valid{gsd}"] = np.ones((size, n, n), np.uint8)
    return batch


def device_facts() -> tuple[str, int]:
    """Name and bytes of memory of the device that a `SuperResolver` of this process uses; ("cpu", 0) without a GPU."""
    if not torch.cuda.is_available():
        return "cpu", 0
    properties = torch.cuda.get_device_properties(0)
    return str(properties.name), int(properties.total_memory)


def _whole(values: Tensor, least: int, greatest: int) -> Tensor:
    """Values rounded and clipped to two limits: int16 with the bits of uint16, as not every device computes uint16."""
    return values.round().clamp_(least, greatest).to(torch.int32).to(torch.int16)
