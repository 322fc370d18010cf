"""Chips a second of the models by preset, precision and batch, beside a plain run of the same networks.

The plain run is what the equations say, operation by operation: float32, tensors as PyTorch lays them out, every step a
whole evaluation of the network with its conditions, all 20 of them.
"""

from __future__ import annotations

import copy
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.images.consistency import back_project, sensor_for_group
from difffusr.kernels.images.normalisation import FUSION, FUSION_RGB, from_stage1
from difffusr.kernels.model import Execution, SuperResolution, load_model
from difffusr.kernels.networks.execution import exact
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import PUBLISHED_V2, merge_groups
from difffusr.kernels.networks.stage1 import PUBLISHED, Stage1
from difffusr.kernels.sampling.diffusion import ddim_timesteps
from difffusr.kernels.sampling.noise import ground_noise
from difffusr.kernels.sampling.settings import SAMPLERS, Sampling
from difffusr.kernels.weights.packaged import shipped_sampling

Precision = Literal["float32", "bfloat16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

#: Side of a chip that belongs to the next ones, too: `grid.overlap_px` by default.
OVERLAP_PX = 24

#: Parts of kernels' names, by kind of work; the first kind that has one counts.
_KINDS = {
    "copies": ("Memcpy", "Memset", "copy", "nchwToNhwc", "nhwcToNchw", "convertTensor"),
    "fused kernels": ("triton", "_combine", "_convolve", "_depthwise", "_affine", "_normalise", "difffusr::"),
    "convolutions and matrix products": (
        "conv",
        "gemm",
        "xmma",
        "cutlass",
        "cudnn",
        "implicit",
        "nvjet",
        "flash",
        "sm90",
        "addmm",
        "bmm",
    ),
}

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
    """A fresh model; `networks` are copied, where the case is of their sizes."""
    if case.models == "small":
        return load_model("small", sampling=case.sampling, device=device, execution=case.execution)
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


def free(device: torch.device) -> None:
    """Give back what models held that nobody uses any more: they refer to themselves, so a collection must end them."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def matrix_peak(dtype: torch.dtype, device: torch.device, sides: Sequence[int] = ()) -> float:
    """FLOP/s of the best of a few square matrix products: what share of a peak is a share of."""
    best = 0.0
    for side in sides or _PEAK_SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * side**3 / seconds(lambda a=a, b=b: a @ b, device, 5))
    return best


def copy_rate(device: torch.device, megabytes: int = 2000) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    x = torch.empty(megabytes * 10**6, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * len(x) / seconds(lambda: y.copy_(x), device, 5)


@lru_cache(maxsize=64)
def flop_of(case: Case, make: Callable[[], tuple[Stage1, Any]] = published_networks) -> float:
    """FLOP of convolutions and matrix products for one chip, counted without computing anything; networks of `make`."""
    meta = torch.device("meta")
    with meta:
        networks = make()
    model = model_of(replace(case, models="published", execution="eager"), meta, networks)
    with FlopCounterMode(display=False) as counter:
        model(*chips(1, case.side, meta))
    return float(counter.get_total_flops())


def measure(
    case: Case,
    device: torch.device,
    networks: tuple[Stage1, Any] | None,
    peak: float,
    make: Callable[[], tuple[Stage1, Any]] = published_networks,
) -> dict[str, Any]:
    """A row: chips/s, km² of cube a second, TFLOP a chip, share of the peak, and GB of the device's memory at the most.

    The first chip of a batch is its last, too: `same_bits` says whether both come out equal to the last bit.
    """
    model = model_of(case, device, networks)
    given = _first_again(chips(case.batch, case.side, device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    out = model(*given)
    _finish(device)
    first = time.perf_counter() - begun
    same = torch.equal(out[0], out[-1])
    del out
    repeats = max(2, min(5, int(4 / first))) if device.type == "cuda" else 2
    took = seconds(lambda: model(*given), device, repeats, warm_up=False)
    exact_case = replace(case, batch=1, execution="eager", sampling=replace(case.sampling, precision="float32"))
    flop = flop_of(exact_case, make)  # the same in any batch and precision: counted once
    row = {
        "what": case.label, "side": case.side, "batch": case.batch, "chips_per_s": case.batch / took,
        "km2_per_s": case.batch / took * square_km(case.side), "tflop_per_chip": flop / 1e12,
        "share_of_peak": flop * case.batch / took / peak, "first_call_s": first,
    }  # fmt: skip
    if case.batch > 1:
        row["same_bits"] = same
    if device.type == "cuda":
        row["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return row


def square_km(side: int) -> float:
    """Of the cube that a chip of so many 10 m pixels brings, which overlaps the next ones."""
    return (max(side - OVERLAP_PX, 0) / 100) ** 2


def _first_again(given: Any) -> Any:
    """A batch whose last chip is its first: tensors, and whatever holds them."""
    if isinstance(given, Tensor):
        return torch.cat([given[:-1], given[:1]]) if len(given) > 1 else given
    if isinstance(given, dict):
        return {name: _first_again(x) for name, x in given.items()}
    return tuple(_first_again(x) for x in given)


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
            took = seconds(lambda m=model, b=batch: m(*b), device, 1, warm_up=False)
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


def sampling(models: str, preset: str, precision: Precision) -> Sampling:
    """How a preset samples."""
    own = shipped_sampling() if models == "small" else Sampling()
    solver, steps = SAMPLERS[preset]
    return replace(own, solver=solver, steps=steps, precision=precision)


def on_cpu() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Tables by title: published sizes at a small chip against the plain run, the shipped models at the usual chip, and
    threads."""
    cpu = torch.device("cpu")
    cases = [case_of("published", "reference", precision, "eager", 1, 48) for precision in get_args(Precision)]
    compared, plain_run = compare_with_plain(cases, cpu)
    yield f"published sizes, 48 px chip, 20 steps; the plain run takes {plain_run['seconds_per_chip']:.1f} s", compared
    peaks = {precision: matrix_peak(_DTYPES[precision], cpu) for precision in get_args(Precision)}
    yield "peak: TFLOP/s of matrix products", _peak_rows(peaks)
    yield (
        "small models, 192 px chip",
        [
            measure(case_of("small", preset, precision, "eager", batch, 192), cpu, None, peaks[precision])
            for preset in SAMPLERS
            for precision in get_args(Precision)
            for batch in ((1, 2) if preset == "fast" else (1,))
        ],
    )
    yield "threads of an actor, small models, fast", by_threads()


def _peak_rows(peaks: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"what": name, "tflop_per_s": peak / 1e12} for name, peak in peaks.items()]


def by_threads() -> list[dict[str, Any]]:
    """Chips a second and core of one actor by its threads, while every other core is as busy."""
    cores = len(os.sched_getaffinity(0))
    rows = []
    for threads in sorted({1, 2, cores} & set(range(1, cores + 1))):
        with ProcessPoolExecutor(cores // threads, get_context("spawn")) as pool:
            rates = list(pool.map(_rate_of_one, [threads] * (cores // threads)))
        rows.append({"what": f"{cores // threads} actors of {threads} threads", "chips_per_s": sum(rates)})
    return rows


def _rate_of_one(threads: int) -> float:
    torch.set_num_threads(threads)
    case = case_of("small", "fast", "float32", "eager", 1, 192)
    model, given = model_of(case, torch.device("cpu"), None), chips(1, 192, torch.device("cpu"))
    return 1 / seconds(lambda: model(*given), torch.device("cpu"), 3)


def on_gpu() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Tables by title, of what a GPU is asked: tolerance, speed against the plain run, share of peak, the best batch,
    where time goes."""
    gpu = torch.device("cuda")
    exact()
    yield "noise, alike on CPU and GPU", [same_noise(gpu)]
    peaks = {precision: matrix_peak(_DTYPES[precision], gpu) for precision in get_args(Precision)}
    yield "peak: TFLOP/s of matrix products", _peak_rows(peaks)
    cases = [
        case_of("published", "reference", precision, execution, batch, 144)
        for precision, execution, batch in (
            ("float32", "eager", 1), ("bfloat16", "eager", 1), ("bfloat16", "fused", 1), ("bfloat16", "fused", 8),
        )
    ]  # fmt: skip
    compared, plain_run = compare_with_plain(cases, gpu, rounds=3)
    yield f"published sizes, 144 px chip, 20 steps; the plain run takes {plain_run['seconds_per_chip']:.3f} s", compared
    networks, peak, rows = published_networks(), peaks["bfloat16"], []
    for side, preset, batches in (
        (144, "reference", (4, 8, 16, 32)),
        (192, "reference", (8, 16)),
        (192, "fast", (8,)),
        (192, "draft", (8,)),
    ):
        for batch in batches:
            case = case_of("published", preset, "bfloat16", "fused", batch, side)
            try:
                rows.append(measure(case, gpu, networks, peak))
            except torch.OutOfMemoryError:
                free(gpu)
                break
            free(gpu)
    yield "published sizes by batch", rows
    best = max((row for row in rows if row["side"] == 144), key=lambda row: row["chips_per_s"])
    case = case_of("published", "reference", "bfloat16", "fused", best["batch"], 144)
    yield "where a GPU's time goes, by kernel", where_time_goes(case, gpu, networks)


#: Seed, zone, row and column of windows of the ground, and their sides: north and south of the equator, a long seed.
WINDOWS = (
    (20240601, 32632, -2119680, 160, 768, 768),
    ((1 << 61) + (1 << 35) + 5, 32748, 12, -40, 576, 768),
)


def same_noise(
    gpu: torch.device, window: tuple[int, int, int, int, int, int] = WINDOWS[0], stream: int = 0
) -> dict[str, Any]:
    """The ground's noise on the GPU, against the CPU's: how many values differ in their last digit."""
    there = ground_noise(*window, stream=stream, device=gpu, kernel=True)
    here = ground_noise(*window, stream=stream)
    took = seconds(lambda: ground_noise(*window, stream=stream, device=gpu, kernel=True), gpu, 5)
    return {
        "what": f"{window[4]} × {window[5]} px", "seconds": took, "differ": int((there.cpu() != here).sum()),
        "difference_max": float((there.cpu() - here).abs().max()),
    }  # fmt: skip


def where_time_goes(case: Case, gpu: torch.device, networks: tuple[Stage1, Any]) -> list[dict[str, Any]]:
    """The device's time of one batch by kind of kernel, and what it waits."""
    return by_kind(*profiled(case, gpu, networks), case.batch)


#: By name of a kernel, its seconds and launches.
Spent = Mapping[str, tuple[float, int]]


def profiled(case: Case, device: torch.device, networks: tuple[Stage1, Any]) -> tuple[Spent, float]:
    """What each kernel took of one batch, and seconds of the batch.

    Not every driver tells of the kernels of a graph: then they are those of the same batch without one.
    """
    model, given = model_of(case, device, networks), chips(case.batch, case.side, device)
    model(*given)
    took = seconds(lambda: model(*given), device, 3 if device.type == "cuda" else 1)
    spent = _kernels(lambda: model(*given), device)
    if device.type == "cuda" and sum(time_s for time_s, _ in spent.values()) < took / 2:
        bands, valid, noise = given
        start = () if case.sampling.solver == "none" else (noise,)
        with torch.inference_mode():
            spent = _kernels(lambda: model._resolve(*bands.values(), *valid.values(), *start), device)
    return spent, took


def _kernels(function: Callable[[], Any], device: torch.device) -> Spent:
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as found:
        function()
        _finish(device)
    spent = {
        event.key: ((event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6, event.count)
        for event in found.key_averages()
    }
    return {name: (time_s, count) for name, (time_s, count) in spent.items() if time_s}


def by_kind(spent: Spent, took: float, batch: int) -> list[dict[str, Any]]:
    """A row for each kind of kernel, and one for what the device waits."""
    times: dict[str, tuple[float, int]] = {}
    for name, (time_s, count) in spent.items():
        kind = kind_of(name)
        before = times.get(kind, (0.0, 0))
        times[kind] = before[0] + time_s, before[1] + count
    times["waiting"] = max(took - sum(time_s for time_s, _ in times.values()), 0.0), 0
    return [
        {"what": kind, "ms_per_chip": 1e3 * time_s / batch, "share": time_s / took, "launches": count}
        for kind, (time_s, count) in sorted(times.items(), key=lambda item: -item[1][0])
    ]


def kind_of(kernel: str) -> str:
    """The kind of work that a kernel does, by its name."""
    return next((kind for kind, marks in _KINDS.items() if any(mark in kernel for mark in marks)), "other")


def case_of(models: str, preset: str, precision: Precision, execution: Execution, batch: int, side: int) -> Case:
    return Case(models, preset, sampling(models, preset, precision), execution, batch, side)
