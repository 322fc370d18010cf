"""SuperResolver: the Ray actor that holds both models and turns batches of read chips into 2.5 m chips."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from difffusr.kernels.networks import LiveBytes, exact
from difffusr.kernels.networks.fusion import merge_groups
from difffusr.kernels.sampling import ground_noise
from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.batch_size import Agreement, fitting
from difffusr.pipeline.chips.device import Lane, Made, OnCores, OnGpu, UnderWay
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.ground.pixels import DN_SCALE, STD_FILL, STD_SCALE
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.plan import read_both, sampling_of, weights_errors

log = logging.getLogger("difffusr.actor")

#: Bytes of a 10 m pixel that a recorded graph holds of its own, the models' inputs and their result; and those of the
#: other batch under way, whole numbers read and made.
_RECORDED_BYTES = 4 * (4 + 6 / 4 + 2 / 36) + (1 + 1 / 4 + 1 / 36) + 4 * SCALE**2 * (3 + 12)
_UNDER_WAY_BYTES = 2 * (4 + 6 / 4 + 2 / 36) + (1 + 1 / 4 + 1 / 36) + 2 * SCALE**2 * 12


@dataclass(frozen=True)
class Resolved:
    """A batch that was given to the device.

    Attributes:
        batch: as it was read.
        errors: (B,) why a chip failed, else empty.
        chosen: positions of chips in the batch, part by part.
        under_way: these parts super-resolved, once they are.
    """

    batch: Batch
    errors: NDArray[Any]
    chosen: list[list[int]]
    under_way: UnderWay


class SuperResolver:
    """Loads both models once and super-resolves batch after batch; pinned to a GPU where the run has GPUs."""

    lane: Lane = OnCores()

    def __init__(self, config: RunConfig, agreement: Agreement | None = None) -> None:
        torch.set_num_threads(config.compute.cpus_per_actor)  # so many chips at a time, each with one thread
        exact()  # the same chip must come out the same on every actor
        # Ray may leave GPUs to be seen by actors that asked for none.
        on_gpu = config.compute.gpus_per_actor != 0 and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        if self.device.type == "cuda":
            self.lane = OnGpu(self.device)
        self.batch = config.compute.batch_on_cores
        self.seed = config.model.seed
        self.samples = config.model.uncertainty_samples
        self.agreement = agreement if config.compute.batch == "auto" and self.device.type == "cuda" else None
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
        """The first half of a call: gives chips to the device, in batches that fit its memory.

        A chip without a valid pixel is left out, and one that skips the networks is only enlarged.
        """
        shows = [i for i, error in enumerate(batch["error"]) if not error and batch["quality"][i].any()]
        skipped = sorted(i for i in shows if "skipped" in batch and batch["skipped"][i])
        readable = [i for i in shows if i not in skipped]
        errors, parts = batch["error"].copy(), [([i], self.enlarge(batch, i)) for i in skipped]
        while readable:
            chosen = readable[: self.batch]
            made, why = self._tried(batch, chosen)
            if made is None and self._make_room():
                continue
            readable = readable[len(chosen) :]
            if made is None:
                errors[chosen] = f"super_resolve: {why}; not even one chip fits: lower grid.chip_px"
            else:
                parts.append((chosen, made))
        return Resolved(batch, errors, [chosen for chosen, _ in parts], self.lane.sent([made for _, made in parts]))

    def fetch(self, resolved: Resolved) -> Batch:
        """The second half of a call: waits for the device, which may already compute the next batch.

        Raises:
            RuntimeError: the device failed.
        """
        batch, parts = resolved.batch, list(zip(resolved.chosen, resolved.under_way.wait(), strict=True))
        kept = {name: column for name, column in batch.items() if not name.startswith(("dn", "valid"))}
        count, size = len(batch["error"]), batch["quality"].shape[-1] * SCALE
        shape = count, len(GROUPS[10]) + len(GROUPS[20]) + len(GROUPS[60]), size, size
        out: Batch = {}
        for name in ("dn", "std") if self.samples else ("dn",):
            if [len(chosen) for chosen, made in parts if name in made] == [count]:
                out[name] = parts[0][1][name]
                continue
            out[name] = np.zeros(shape, np.uint16)
            for chosen, made in parts:
                if name in made:
                    out[name][chosen] = made[name]
        return {**kept, "error": resolved.errors, **out}

    @weights_errors()
    def _load(self, config: RunConfig) -> SuperResolution:
        """The models, run as `compute.execution` says, and tried out where that takes memory or may fail.

        Raises:
            DifffusrError: they are to be fused, and cannot be.
            StoreError: what the actors have agreed on cannot be read or written.
            WeightsError: the weights cannot be used.
        """
        wanted, on_gpu = config.compute.execution, self.device.type == "cuda"
        load = partial(model_from_weights, *read_both(config), sampling_of(config))
        if wanted == "fused" or (wanted == "auto" and on_gpu):
            try:
                return self._tried_out(config.grid.chip_px, partial(load, execution="fused"))
            except (RuntimeError, ImportError) as error:  # no Triton, no C compiler, a device that it does not know
                if wanted == "fused":
                    raise DifffusrError(
                        f"the networks cannot be fused here ({first_line(error)}); set compute.execution to 'eager'"
                    ) from error
                log.warning("the networks cannot be fused here, and run operation by operation: %s", first_line(error))
        return self._tried_out(config.grid.chip_px, load) if on_gpu else load(self.device)

    def _tried_out(self, side: int, load: Callable[..., SuperResolution]) -> SuperResolution:
        """The models, after batches of no image: these record the networks' graph, and show whether batches fit before
        there are chips. With an agreement that is also how the size of batches is found.

        Args:
            side: of a chip, 10 m pixels.
            load: loads the models to a device.
        """
        self.model = load(self.device)
        if self.agreement is None:
            self._shrink(side)
            return self.model
        agreement = self.agreement.on(self.model.fingerprint, self.model.execution, *device_facts())
        agreed = agreement.remembered()
        self.batch = agreed or fitting(partial(self._bytes_needed, load, side), agreement.bytes)
        self._shrink(side)
        agreed = agreement.settled(self.batch)
        if agreed < self.batch:
            self.batch = agreed
            self._shrink(side)
        if self.batch < agreed:
            log.warning(
                "batches of %d, which this run's actors have agreed on, do not fit on this %s: this actor takes %d "
                "chips at a time, and their last digits may differ", agreed, agreement.device, self.batch,
            )  # fmt: skip
        log.info("batches of %d on %s", self.batch, agreement.device)
        return self.model

    def _shrink(self, side: int) -> None:
        """Make the batch so small that it fits on the device, or one chip."""
        while not self._fits(side) and self._make_room():
            pass

    def _fits(self, side: int) -> bool:
        """Whether as many batches as may be under way fit on the device."""
        batch, rows = no_image(self.batch, side), list(range(self.batch))
        tries = [self._tried(batch, rows)[0] for _ in range(2 if self.lane.beside else 1)]
        self.lane.sent([made for made in tries if made is not None]).wait()
        return None not in tries

    def _bytes_needed(self, load: Callable[..., SuperResolution], side: int, size: int) -> int:
        """Bytes of the device that batches of a size take, two of them under way; counted without the device.

        The sampler's steps hold the same, so that two show what all need.
        """
        twin = copy.copy(self)
        twin.device, twin.lane, twin.batch = torch.device("meta"), OnCores(), size
        twin.model = load(twin.device)
        twin.model.sampling = replace(twin.model.sampling, steps=min(twin.model.sampling.steps, 2))
        with LiveBytes() as live:
            twin.super_resolve(no_image(size, side), list(range(size)))
        parts = (twin.model.stage1, twin.model.fusion)
        weights = sum(weight.nbytes for part in parts for weight in (*part.parameters(), *part.buffers()))
        behind = _UNDER_WAY_BYTES * (2 if self.samples else 1)
        return int(weights + live.peak + size * side**2 * (_RECORDED_BYTES + behind))

    def _tried(self, batch: Batch, chosen: list[int]) -> tuple[Made | None, str]:
        """`super_resolve`, or why the device's memory is not enough for it; what that held is free again."""
        try:
            return self.super_resolve(batch, chosen), ""
        except torch.OutOfMemoryError as error:
            return None, first_line(error)

    def _make_room(self) -> bool:
        """The device's memory is full: from now on keep less in it at a time; False where one chip does not fit."""
        if self.lane.beside and self.lane.drain():
            self.lane.beside = False
            log.warning("%s has no memory for two batches of %d: from now on one at a time", self.device, self.batch)
        elif self.batch > 1:
            self.batch //= 2
            log.warning("out of memory on %s: from now on batches of %d (compute.batch)", self.device, self.batch)
        else:
            return False
        torch.cuda.empty_cache()
        return True

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Made:
        """`dn` and perhaps `std`, (len(chosen), 12, 4n, 4n), of some chips of a batch; a GPU computes them later.

        On a GPU a partial batch is filled up with copies: a network's last digits may depend on its batch size, and a
        chip must not depend on how chips were grouped. On CPUs each is computed alone.
        """
        alone = self.device.type == "cpu"
        rows = chosen + [chosen[-1]] * (0 if alone else self.batch - len(chosen))
        bands = {gsd: self._reflectance(batch[f"dn{gsd}"], rows) for gsd in GROUPS}
        valid = {gsd: self._given(batch[f"valid{gsd}"], rows)[:, None] > 0 for gsd in GROUPS}
        if not self.samples:
            start = None if self.model.sampling.solver == "none" else self.noise(batch, rows)
            reflectance = self.model(bands, valid, start)
            return {"dn": _whole(reflectance[: len(chosen)] * DN_SCALE, 1, 65535)}
        noises = (self.noise(batch, rows, sample) for sample in range(self.samples))
        reflectance, std = self.model.with_spread(bands, valid, noises)
        return {
            "dn": _whole(reflectance[: len(chosen)] * DN_SCALE, 1, 65535),
            "std": _whole(std[: len(chosen)] * STD_SCALE, 0, STD_FILL - 1),
        }

    @torch.inference_mode()
    def enlarge(self, batch: Batch, i: int) -> Made:
        """`dn`, (1, 12, 4n, 4n), of one chip of a batch: every band bicubically, without the networks."""
        side = batch["quality"].shape[-1] * SCALE
        groups = {}
        for gsd in GROUPS:
            valid = self._given(batch[f"valid{gsd}"], [i])[:, None] > 0
            filled = fill_invalid(self._reflectance(batch[f"dn{gsd}"], [i]), valid)
            groups[gsd] = F.interpolate(filled, size=[side, side], mode="bicubic", align_corners=False)
        return {"dn": _whole(merge_groups(groups) * DN_SCALE, 1, 65535)}

    def _reflectance(self, dn: NDArray[np.uint16], rows: list[int]) -> Tensor:
        """DN as float32 reflectance on the device; only two bytes a value are copied to it."""
        whole = self._given(dn.view(np.int16), rows).to(torch.int32).bitwise_and_(0xFFFF)
        # By a tensor: by a plain number CUDA does not divide but multiplies with the reciprocal. Filled on the device:
        # a number that is copied there makes the host wait.
        return whole.to(torch.float32).div_(torch.full((), float(DN_SCALE), device=self.device))

    def _given(self, values: NDArray[Any], rows: list[int]) -> Tensor:
        return self.lane.given(values, rows).to(self.device)

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
