"""Chips a second of the models by preset, precision and batch, beside a plain run of the same networks.

The plain run is what the equations say, operation by operation: float32, tensors as PyTorch lays them out, every step a
whole evaluation of the network with its conditions, all 20 of them.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kernels.bands import GROUPS, SCALE
from kernels.consistency import back_project, sensor_for_group
from kernels.diffusion import ddim_timesteps
from kernels.fusion import PUBLISHED_V2, build_fusion, merge_groups
from kernels.model import Execution, Sampling, SuperResolution, load_model, shipped_sampling
from kernels.normalisation import FUSION, FUSION_RGB, from_stage1
from kernels.stage1 import PUBLISHED, Stage1

#: Matrix sides tried for the device's peak.
_PEAK_SIDES = {"cpu": (1024, 2048, 3072), "cuda": (4096, 8192, 16384)}


@dataclass(frozen=True)
class Case:
    """A way to run models.

    Attributes:
        models: "published" (published sizes, random weights, newer fusion network) or "small" (as shipped).
        sampling: of it.
        batch, side: chips at a time, and their side in 10 m pixels.
    """

    models: str
    preset: str
    sampling: Sampling
    execution: Execution
    batch: int
    side: int

    @property
    def label(self) -> str:
        return f"{self.models} {self.preset} {self.sampling.precision} {self.execution} batch {self.batch}"


def published_networks(seed: int = 0) -> tuple[Stage1, Any]:
    """The published sizes with random weights, the same every time; no image comes of them, only time.

    The last convolutions of both stages are scaled down so that values stay in the range of reflectance.
    """
    torch.manual_seed(seed)
    stage1 = Stage1(PUBLISHED)
    fusion = build_fusion(PUBLISHED_V2).eval().requires_grad_(False)
    return stage1, fusion


def model_of(case: Case, device: torch.device, networks: tuple[Stage1, Any] | None) -> SuperResolution:
    """A fresh model; `networks` are copied."""
    if case.models == "small":
        return load_model("small", sampling=case.sampling, device=device, execution=case.execution)
    assert networks is not None
    stage1, fusion = copy.deepcopy(networks)
    return SuperResolution(stage1, fusion, case.sampling, device=device, execution=case.execution)


def chips(batch: int, side: int, device: torch.device) -> tuple[dict[int, Tensor], dict[int, Tensor], Tensor]:
    """Reflectance that varies smoothly, all valid, and noise; the same every time."""
    generator = torch.Generator().manual_seed(1)
    bands, valid = {}, {}
    for gsd, names in GROUPS.items():
        n = side * 10 // gsd
        coarse = torch.rand(batch, len(names), 9, 9, generator=generator) * 0.3
        texture = 0.01 * torch.randn(batch, len(names), n, n, generator=generator)
        bands[gsd] = (torch.nn.functional.interpolate(coarse, size=n, mode="bicubic") + texture).to(device)
        valid[gsd] = torch.ones(batch, 1, n, n, dtype=torch.bool, device=device)
    noise = torch.randn(batch, 3, SCALE * side, SCALE * side, generator=generator).to(device)
    return bands, valid, noise


@torch.inference_mode()
def plain(stage1: Stage1, fusion: Any, bands: dict[int, Tensor], noise: Tensor, steps: int = 20) -> Tensor:
    """One chip (batch 1) as the equations have it, with back-projection as in a run: (1, 12, 4n, 4n) reflectance."""
    lr = bands[10][:, :3]
    ctx, vector = stage1.encode(lr)
    schedule = stage1.schedule
    x = noise
    for t, p in ddim_timesteps(len(schedule), len(schedule) // steps):
        abar, before = schedule.alphas_cumprod[t].to(x.device), schedule.alphas_cumprod[p].to(x.device)
        x0 = stage1.ema(x, abar.sqrt().expand(1, 1), ctx, vector).clamp(-1, 1)
        eps = (x / abar.sqrt() - x0) / (1 / abar - 1).sqrt()
        x = before.sqrt() * x0 + (1 - before).sqrt() * eps
    sr = _projected(10, from_stage1(x), lr, 3)
    out = fusion({gsd: FUSION.select(GROUPS[gsd]).apply(bands[gsd]) for gsd in GROUPS}, FUSION_RGB.apply(sr))
    groups = {gsd: FUSION.select(GROUPS[gsd]).invert(out[gsd]) for gsd in GROUPS}
    return merge_groups({gsd: _projected(gsd, groups[gsd], bands[gsd], len(GROUPS[gsd])) for gsd in GROUPS})


def _projected(gsd: int, x: Tensor, measured: Tensor, channels: int) -> Tensor:
    sensor = sensor_for_group(gsd, measured.shape[-1]).to(x.device)
    some = type(sensor)(*(part[:channels] for part in sensor))
    return back_project(x, measured, torch.ones_like(measured[:, :1]), some)


def seconds(function: Callable[[], Any], device: torch.device, repeats: int, warm_up: bool = True) -> float:
    """Median wall time of a call; the device has finished what it was given."""
    if warm_up:
        function()
    times = []
    for _ in range(repeats):
        _finish(device)
        begun = time.perf_counter()
        function()
        _finish(device)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the best of a few square matrix products: what share of a peak is a share of."""
    best = 0.0
    for side in _PEAK_SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * side**3 / seconds(lambda a=a, b=b: a @ b, device, 5))  # type: ignore[misc]
    return best


def flop_of(case: Case) -> float:
    """FLOP of convolutions and matrix products for one chip, counted without computing anything."""
    one = Case(case.models, case.preset, case.sampling, "eager", 1, case.side)
    meta = torch.device("meta")
    networks = published_networks() if case.models == "published" else None
    model = model_of(one, torch.device("cpu"), networks)
    model.stage1.to(meta), model.fusion.to(meta)
    model.device = meta
    with FlopCounterMode(display=False) as counter:
        model(*chips(1, case.side, meta))
    return float(counter.get_total_flops())


def measure(case: Case, device: torch.device, networks: tuple[Stage1, Any] | None, peak: float) -> dict[str, Any]:
    """A row: chips/s, TFLOP a chip, share of the peak, and GB of the device's memory at the most."""
    model = model_of(case, device, networks)
    given = chips(case.batch, case.side, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    model(*given)
    _finish(device)
    first = time.perf_counter() - begun
    took = seconds(lambda: model(*given), device, 5 if device.type == "cuda" else 2, warm_up=False)
    flop = flop_of(case)
    row = {
        "what": case.label, "side": case.side, "batch": case.batch, "chips_per_s": case.batch / took,
        "tflop_per_chip": flop / 1e12, "share_of_peak": flop * case.batch / took / peak, "first_call_s": first,
    }  # fmt: skip
    if device.type == "cuda":
        row["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return row


@torch.inference_mode()
def compare_with_plain(
    cases: Sequence[Case], device: torch.device, rounds: int = 2
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Published networks, 20 steps: each case's seconds a chip in turn with the plain run's, and how results differ.

    Returns:
        rows with `speed_up` (median over rounds of plain seconds / seconds) and the `difference` of the results in
        reflectance (mean and maximum); and the plain run's seconds.
    """
    networks = published_networks()
    stage1, fusion = (network.to(device) for network in copy.deepcopy(networks))
    given = bands, _, noise = chips(1, cases[0].side, device)
    exact = plain(stage1, fusion, bands, noise)
    plain_s: list[float] = []
    ours: dict[str, list[float]] = {case.label: [] for case in cases}
    models = {case.label: (case, model_of(case, device, networks)) for case in cases}
    rows = {}
    for label, (case, model) in models.items():
        difference = (model(*_repeated(given, case.batch))[:1] - exact).abs()
        rows[label] = {"difference_mean": float(difference.mean()), "difference_max": float(difference.max())}
    for _ in range(rounds):
        plain_s.append(seconds(lambda: plain(stage1, fusion, bands, noise), device, 1, warm_up=False))
        for label, (case, model) in models.items():
            batch = _repeated(given, case.batch)
            took = seconds(lambda m=model, b=batch: m(*b), device, 1, warm_up=False)  # type: ignore[misc]
            ours[label].append(took / case.batch)
    out = [
        {"what": label, "seconds_per_chip": statistics.median(ours[label]), **rows[label],
         "speed_up": statistics.median(p / o for p, o in zip(plain_s, ours[label], strict=True))}
        for label in models
    ]  # fmt: skip
    return out, {"seconds_per_chip": statistics.median(plain_s)}


def _repeated(given: Any, batch: int) -> Any:
    """The same chip so many times: tensors, and whatever holds them."""
    if isinstance(given, Tensor):
        return given.expand(batch, *given.shape[1:]).contiguous()
    if isinstance(given, dict):
        return {name: _repeated(x, batch) for name, x in given.items()}
    return tuple(_repeated(x, batch) for x in given)


def reference(models: str, precision: str) -> Sampling:
    """The sampler of a reference run in a precision."""
    own = shipped_sampling() if models == "small" else Sampling()
    return Sampling(**{**vars(own), "steps": 20, "precision": precision})
