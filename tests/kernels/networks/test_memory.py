"""Bytes counted without a device are those that PyTorch's allocator gives out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from model_speed import case_of, chips, model_of, published_networks
from torch.profiler import ProfilerActivity, profile

from difffusr.kernels.networks.memory import LiveBytes


def test_views_count_once_and_what_nobody_refers_to_is_released():
    with LiveBytes() as live:
        x = torch.empty(100, 128, device="meta")
        y = x.view(128, 100)[3:]
        assert live.now == 51_200
        z = x + 1
        x.add_(z)
        assert (live.now, live.peak) == (102_400, 102_400)
        del x
        assert live.now == 102_400  # y is a part of it
        del y, z
        assert (live.now, live.peak) == (0, 102_400)
        kept = torch.empty(1, device="meta")
        torch.empty(1000)  # on the host
        assert live.now == 512
    del kept


def allocated(function: Any, inputs: list[torch.Tensor]) -> int:
    """Most bytes at a time that PyTorch's allocator gives out during a call, its inputs included."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function(*inputs)
    events = run.profiler.kineto_results.events()
    now = peak = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        now += size
        peak = max(peak, now)
    return peak + sum(x.nbytes for x in inputs)


@pytest.mark.parametrize(
    ("models", "preset", "precision", "batch", "side"),
    [
        ("small", "reference", "float32", 2, 24),
        ("small", "fast", "bfloat16", 3, 24),
        ("small", "draft", "float32", 1, 60),
        ("small", "reference", "bfloat16", 1, 48),
        pytest.param("published", "reference", "float32", 1, 24, marks=pytest.mark.slow),
    ],
)
def test_counted_and_allocated_differ_by_less_than_a_tenth(models, preset, precision, batch, side):
    case = case_of(models, preset, precision, "eager", batch, side)
    if case.sampling.solver != "none":
        case = replace(case, sampling=replace(case.sampling, steps=2))
    peaks = []
    for device in (torch.device("cpu"), torch.device("meta")):
        with device:
            networks = published_networks() if models == "published" else None
        model = model_of(case, device, networks)
        bands, valid, noise = chips(batch, side, device)
        inputs = [*bands.values(), *valid.values(), *([noise] if case.sampling.solver != "none" else [])]
        with torch.inference_mode():
            model._resolve(*inputs)  # what is made at the first call is kept
        if device.type == "cpu":
            peaks.append(allocated(model._resolve, inputs))
            continue
        with torch.inference_mode(), LiveBytes() as live:
            model._resolve(*inputs)
        peaks.append(live.peak + sum(x.nbytes for x in inputs))
    assert peaks[1] == pytest.approx(peaks[0], rel=0.1)
