"""Chips and km² a second, by preset, size, batch, precision and way to run.

First calls find what the part before has compiled; how long it takes without is told by `start`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import model_speed
import torch

from difffusr.kernels.model import Execution
from gpu.machine import peak
from gpu.parts import Row, Setting, no_time, tried
from gpu.subject import device_of, maker


class Asked(NamedTuple):
    """What is measured, and about how many seconds that takes."""

    preset: str
    precision: model_speed.Precision
    execution: Execution
    side: int
    batch: int
    seconds: float = 8.0


#: In the order of their importance.
CASES = (
    Asked("reference", "bfloat16", "fused", 144, 8, 15),
    Asked("reference", "bfloat16", "fused", 144, 16),
    Asked("fast", "bfloat16", "fused", 192, 8),
    Asked("fast", "bfloat16", "fused", 192, 16),
    Asked("reference", "float32", "eager", 144, 4, 20),
    Asked("reference", "bfloat16", "eager", 144, 8),
    Asked("fast", "bfloat16", "fused", 144, 8),
    Asked("fast", "bfloat16", "fused", 144, 16),
    Asked("reference", "bfloat16", "fused", 192, 8),
    Asked("reference", "bfloat16", "fused", 192, 16),
    Asked("draft", "bfloat16", "fused", 192, 8),
    Asked("reference", "bfloat16", "fused", 144, 32),
    Asked("fast", "bfloat16", "fused", 192, 32),
    Asked("reference", "bfloat16", "fused", 144, 4),
    Asked("reference", "float32", "fused", 144, 8, 15),
    Asked("fast", "bfloat16", "fused", 192, 4),
    Asked("draft", "bfloat16", "fused", 144, 8),
    Asked("reference", "bfloat16", "fused", 192, 32, 15),
)

#: Those of a dry run.
DRY_CASES = (
    Asked("fast", "float32", "eager", 30, 1),
    Asked("fast", "bfloat16", "fused", 30, 2),
)


def rows(setting: Setting) -> Iterator[Row]:
    """A row for each case and one for the plain run, published sizes; `times_eager_float32` where that is known."""
    device, make = device_of(setting), maker(setting)
    networks, eager = make(), {}
    full: dict[tuple[str, str, str, int], int] = {}  # the batches that did not fit
    for asked in DRY_CASES if setting.dry else CASES:
        kind = (asked.preset, asked.precision, asked.execution, asked.side)
        what = f"{asked.preset} {asked.precision} {asked.execution} {asked.side} px batch {asked.batch}"
        if asked.batch >= full.get(kind, 1 << 30):
            yield {"what": what, "note": "a smaller batch fills the memory"}
        elif not setting.has(asked.seconds):
            yield no_time(what)
        else:
            row = tried(what, partial(_fitting, what, partial(measured, asked, setting, device, networks, make)))
            if row.get("full"):
                full[kind] = asked.batch
            if "chips_per_s" in row and (asked.precision, asked.execution) == ("float32", "eager"):
                eager[asked.preset, asked.side] = row["chips_per_s"]
            if "chips_per_s" in row and asked.execution == "fused" and (asked.preset, asked.side) in eager:
                row["times_eager_float32"] = row["chips_per_s"] / eager[asked.preset, asked.side]
            yield row
        model_speed.free(device)
    asked, what = (DRY_CASES[-1] if setting.dry else CASES[0]), "with small convolutions' taps in a loop"
    yield (
        tried(what, partial(looped, what, asked, setting, device, networks, make)) if setting.has(12) else no_time(what)
    )
    model_speed.free(device)
    last = "the plain run"
    yield tried(last, partial(plain, setting, device, networks)) if setting.has(12) else no_time(last)


def _fitting(what: str, function: Callable[[], Row]) -> Row:
    """A row, which says so where the batch does not fit."""
    try:
        return function()
    except torch.OutOfMemoryError:
        return {"what": what, "note": "fills the memory", "full": True}


def measured(asked: Asked, setting: Setting, device: torch.device, networks: Any, make: Any) -> Row:
    """A row of `model_speed.measure`, with what was asked for."""
    case = model_speed.case_of("published", asked.preset, asked.precision, asked.execution, asked.batch, asked.side)
    row = model_speed.measure(case, device, networks, peak(setting, asked.precision), make)
    if asked.execution == "fused" and "same_bits" in row:
        row["ok"] = row["same_bits"]
    return {
        "what": f"{asked.preset} {asked.precision} {asked.execution}", "models": "published", "preset": asked.preset,
        "precision": asked.precision, "execution": asked.execution, **{k: v for k, v in row.items() if k != "what"},
    }  # fmt: skip


def looped(what: str, asked: Asked, *given: Any) -> Row:
    """The row of a case whose small convolutions have one code for all taps (`triton_forms._UNROLLED`): not what ships,
    so no row of a table of rates."""
    with mock.patch("difffusr.kernels.networks.fused.triton_forms._UNROLLED", False):
        row = measured(asked, *given)
    del row["models"], row["preset"]
    return {**row, "what": f"{row['what']} {what}"}


def plain(setting: Setting, device: torch.device, networks: Any) -> Row:
    """The row of the plain run: float32, step by step, chip by chip."""
    side, steps = (12, 2) if setting.dry else (144, 20)
    stage1, fusion = (network.to(device) for network in networks)
    bands, _, noise = model_speed.chips(1, side, device)
    run = partial(model_speed.plain, stage1, fusion, bands, noise, steps)
    took = model_speed.seconds(run, device, 1 if setting.dry else 2)
    return {
        "what": "the plain run", "precision": "float32", "execution": "step by step", "side": side, "batch": 1,
        "chips_per_s": 1 / took, "km2_per_s": model_speed.square_km(side) / took,
    }  # fmt: skip
