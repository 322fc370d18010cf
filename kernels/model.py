"""Both stages as one model: measured bands on their native grids in, 12 bands at 2.5 m out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from difffusr.kernels.bands import GROUPS, RGB
from difffusr.kernels.images import (
    FUSION,
    FUSION_RGB,
    Sensor,
    back_project,
    fill_invalid,
    not_darker,
    sensor_for_group,
)
from difffusr.kernels.networks import ChipByChip, Recorded, Stage1, fuse
from difffusr.kernels.networks.fusion import FusionNetwork, fusion_from_weights, merge_groups, pick_channels
from difffusr.kernels.sampling import Sampling, fingerprint, sample_spread
from difffusr.kernels.weights import Preset, Weights, load_weights, weight_files

#: "eager": operation by operation. "fused": the operations between convolutions are few kernels; on GPUs the whole chip
#: is also recorded as one graph and replayed. Results differ by rounding only.
Execution = Literal["eager", "fused"]

_RGB: Final = [GROUPS[10].index(band) for band in RGB]


class SuperResolution:
    """Holds both networks on one device.

    On a CPU a chip has the same bits in any batch and with any number of threads, on one kind of processor and with one
    torch (`ChipByChip`). On a GPU its last digits depend on the size of the batch.

    Attributes:
        fingerprint: hash of weights and sampling; models with the same fingerprint compute the same.
        execution: see `Execution`; when fused, the first call for each chip shape is slower on a GPU.
    """

    def __init__(
        self,
        stage1: Stage1,
        fusion: FusionNetwork,
        sampling: Sampling = Sampling(),
        *,
        fingerprint: str = "",
        device: torch.device | str = "cpu",
        execution: Execution = "eager",
    ) -> None:
        self.device = torch.device(device)
        layout = torch.channels_last
        self.stage1 = stage1.to(self.device, memory_format=layout).eval().requires_grad_(False)  # type: ignore[call-overload]
        self.fusion = fusion.to(self.device, memory_format=layout).eval().requires_grad_(False)  # type: ignore[call-overload]
        self.sampling = sampling
        self.fingerprint = fingerprint
        self.execution = execution
        self._sensors: dict[tuple[int, int, tuple[int, ...]], Sensor] = {}
        if sampling.precision == "bfloat16":
            self.stage1.lower(torch.bfloat16)
            self.fusion.lower(torch.bfloat16)
        self._run: Callable[..., Tensor] = self._resolve
        if execution == "fused":
            fuse(self.stage1)
            fuse(self.fusion)
        if self.device.type == "cpu":
            self._run = ChipByChip(self._resolve)
        elif execution == "fused" and self.device.type == "cuda":
            self._run = Recorded(self._resolve, self.device, lambda: self.sampling)

    @torch.inference_mode()
    def __call__(self, bands: Mapping[int, Tensor], valid: Mapping[int, Tensor], noise: Tensor | None) -> Tensor:
        """Super-resolve a batch of square chips.

        Args:
            bands: by native GSD in metres, (B, C, n, n) reflectance, bands in `GROUPS` order; n = side in metres / GSD.
            valid: by native GSD, (B, 1, n, n) bool.
            noise: (B, 3, 4n, 4n) standard normal for n of the 10 m bands; may be None if the solver is "none".

        Returns:
            (B, 12, 4n, 4n) float32 reflectance in `BANDS` order, not clipped; meaningless where nothing was valid.
        """
        start = () if noise is None or self.sampling.solver == "none" else (noise,)
        return self._run(*(bands[gsd] for gsd in GROUPS), *(valid[gsd] for gsd in GROUPS), *start)

    def _resolve(self, *inputs: Tensor) -> Tensor:
        """`__call__` on bands and masks in the order of `GROUPS`, then noise; reads no tensor's values on a GPU."""
        count, given = len(GROUPS), [x.to(self.device) for x in inputs]
        measured, known = (dict(zip(GROUPS, part, strict=True)) for part in (given[:count], given[count : 2 * count]))
        noise = given[2 * count :]
        filled = {gsd: fill_invalid(measured[gsd], known[gsd]) for gsd in GROUPS}
        rgb = pick_channels(filled[10], _RGB)
        sr = super_resolve_rgb(
            self.stage1, rgb.contiguous(memory_format=torch.channels_last), noise[0] if noise else None, self.sampling
        )
        if self.sampling.consistency:
            sr = self._project(10, sr, rgb, known[10], _RGB)
        if self.fusion.passes_rgb:  # nothing after it would lift what fell below zero beside river banks
            sr = not_darker(sr, rgb)
            if self.sampling.consistency:
                sr = not_darker(self._project(10, sr, rgb, known[10], _RGB), rgb)
        fused = self.fusion(self._standardised(filled), FUSION_RGB.apply(sr))
        groups = {gsd: FUSION.select(GROUPS[gsd]).invert(fused[gsd]) for gsd in GROUPS}
        if self.sampling.consistency and not self.fusion.passes_rgb:
            groups = {
                gsd: self._project(gsd, groups[gsd], filled[gsd], known[gsd], range(len(GROUPS[gsd]))) for gsd in GROUPS
            }
        if self.fusion.passes_rgb:  # as they are, to the last bit
            groups[10] = torch.cat([sr, groups[10][:, len(_RGB) :]], 1)
        return merge_groups(groups)

    @torch.inference_mode()
    def with_spread(
        self, bands: Mapping[int, Tensor], valid: Mapping[int, Tensor], noises: Iterable[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Super-resolve a batch once for each of K noise fields: the result, and how much it varies with the noise.

        The model runs K times; the result is the first sample. Four results are in memory at a time for any K, if
        `noises` generates its fields one by one.

        Args:
            bands, valid: as for a call.
            noises: K ≥ 2 fields (B, 3, 4n, 4n), independent standard normal noise for the same chips.

        Returns:
            (B, 12, 4n, 4n) float32 reflectance, exactly the result of a call with the first field; and the standard
            deviation (K − 1 in the denominator) of the K results, same shape, float32 reflectance. It is 0 where the
            noise has no influence: at temperature 0, or without a solver.

        Raises:
            ValueError: fewer than two noise fields.
        """
        return sample_spread(self(bands, valid, noise) for noise in noises)

    def _standardised(self, filled: Mapping[int, Tensor]) -> dict[int, Tensor]:
        return {gsd: FUSION.select(GROUPS[gsd]).apply(filled[gsd]) for gsd in GROUPS}

    def _project(self, gsd: int, x: Tensor, measured: Tensor, valid: Tensor, channels: Sequence[int]) -> Tensor:
        """Back-project some channels of a group onto the measurement; its matrices are made at the first call."""
        key = gsd, measured.shape[-1], tuple(channels)
        if key not in self._sensors:
            sensor = sensor_for_group(gsd, measured.shape[-1])
            self._sensors[key] = Sensor(*(part[list(channels)] for part in sensor)).to(self.device)
        return back_project(x, measured, valid, self._sensors[key])


def super_resolve_rgb(stage1: Stage1, lr: Tensor, noise: Tensor | None, sampling: Sampling) -> Tensor:
    """Run stage 1 as `sampling` says, before any back-projection.

    `lr` (B, 3, h, w): R, G, B, reflectance; `noise` (B, 3, 4h, 4w): standard normal, on any device, ignored if the
    solver is "none". Returns (B, 3, 4h, 4w), reflectance, not clamped. Raises ValueError if noise is missing.
    """
    if sampling.solver == "none":
        return stage1.deterministic(lr)
    if noise is None:
        raise ValueError(f"solver {sampling.solver!r} starts from noise: expected (B, 3, 4h, 4w), got None")
    x_T = sampling.temperature * noise.to(lr.device).contiguous(memory_format=torch.channels_last)
    if sampling.solver == "multistep":
        return stage1.sample_multistep(lr, x_T, sampling.steps)
    return stage1.sample(lr, x_T, skip=1000 // sampling.steps, skip_last=True, denoised=sampling.denoised)


def load_model(
    preset: Preset,
    stage1: str | None = None,
    fusion: str | None = None,
    sampling: Sampling = Sampling(),
    device: torch.device | str = "cpu",
    execution: Execution = "eager",
) -> SuperResolution:
    """Load both stages.

    Args:
        preset: "small" for the weights that ship with the package, "published" for checkpoints given by the caller.
        stage1, fusion: path of a checkpoint; replaces the shipped file under "small".

    Raises:
        WeightsError: a file is missing, damaged, or holds something else; the message names it.
    """
    first, second = weight_files(preset, stage1, fusion)
    return model_from_weights(load_weights(first), load_weights(second), sampling, device, execution)


def model_from_weights(
    stage1: Weights,
    fusion: Weights,
    sampling: Sampling = Sampling(),
    device: torch.device | str = "cpu",
    execution: Execution = "eager",
) -> SuperResolution:
    """The model made of loaded weights of both stages.

    Raises:
        WeightsError: the weights belong to another network; the message names the file.
    """
    return SuperResolution(
        Stage1.from_weights(stage1),
        fusion_from_weights(fusion),
        sampling,
        fingerprint=fingerprint(sampling, {"stage1": stage1.sha256, "fusion": fusion.sha256}),
        device=device,
        execution=execution,
    )


def check_weights(stage1: Weights, fusion: Weights) -> None:
    """Check that the networks of both stages can be built from these weights.

    Raises:
        WeightsError: as `model_from_weights`.
    """
    Stage1.from_weights(stage1)
    fusion_from_weights(fusion)


def weights_sha256(preset: Preset, stage1: str | None, fusion: str | None) -> dict[str, str]:
    """sha256 of the files of both stages, `stage1` and `fusion`, after a check that they can be used.

    `weights.shipped.files_sha256` is the same without the check, and without torch.

    Raises:
        WeightsError: as `load_model`.
    """
    first, second = (load_weights(file) for file in weight_files(preset, stage1, fusion))
    check_weights(first, second)
    return {"stage1": first.sha256, "fusion": second.sha256}


def model_fingerprint(preset: Preset, stage1: str | None, fusion: str | None, sampling: Sampling) -> str:
    """The fingerprint of `load_model` with the same arguments; checks that both files can be used.

    Raises:
        WeightsError: as `load_model`.
    """
    return fingerprint(sampling, weights_sha256(preset, stage1, fusion))
