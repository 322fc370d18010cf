"""How much of the time the model of an actor is at work, and what it waits for else: real files are read and real
objects staged on a local disk, the model sleeps for as long as a GPU would compute.

`make bench` runs it; it leaves `busy.png` and `busy.json` beside this file.

The time of a chip is what the networks are meant to take on a large GPU with published weights, 144 px and 20 steps.
What the cores do for a chip is what a longer run uses more than a shorter one: everything that a run starts with is in
both. It is measured for two sides of chips, and says how many cores a GPU needs beside it at a given rate.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import psutil
import pytest
from sleeping_model import MODEL, STATES, Days, run
from textured_world import textured_world

HERE = Path(__file__).resolve().parent

#: Seconds of the model a chip.
CHIP_S = float(os.environ.get("CHIP_S", "0.04"))

#: Chips of a batch, and of the longer and the shorter run.
BATCH, CHIPS, FEW = 8, 480, 96

#: 10 m pixels of a chip's side: of the chips that GPUs were measured with, and as by default.
SIDES = (144, 192)

#: Chips a second for which cores are stated.
RATE = 20

#: Least share of the time between its first and last chip that the model is at work.
BUSY = 0.97


@pytest.mark.bench
@pytest.mark.parametrize("side", SIDES)
def test_the_model_is_at_work_all_the_time_but_a_thirtieth(tmp_path, side):
    assert measure(tmp_path, side)["busy"] >= BUSY


def measure(folder: Path, side: int, keep: Path | None = HERE) -> dict[str, Any]:
    """Run the job in an empty folder; leaves figures in another, beside those of other sides, and a picture of the
    first side; returns the figures."""
    cores = psutil.cpu_count() or 1
    path = textured_world(folder / "world", CHIPS, {"gpus_per_actor": 1, "batch": BATCH}, side)
    told, (days,) = run(path, folder / "diaries", chips=CHIPS, gpus=1, cpus=cores, chip_s=CHIP_S)
    again = textured_world(folder / "again", CHIPS, {"gpus_per_actor": 1, "batch": BATCH}, side)
    fewer, _ = run(again, folder / "fewer", chips=FEW, gpus=1, cpus=cores, chip_s=CHIP_S)
    assert days.chips == told["chips"]
    assert all(before.ended <= after.begun for before, after in pairwise(days.model))  # one batch at a time
    core_ms = 1e3 * (told["core_s"] - fewer["core_s"]) / (told["chips"] - fewer["chips"])
    figures = {
        "chips": days.chips,
        "model_ms": round(CHIP_S * 1e3, 1),
        "batch": BATCH,
        "busy": round(days.busy, 4),
        "idle": {state: round(share, 4) for state, share in days.idle().items()},
        "thread_ms_of_a_chip": {state: round(seconds * 1e3, 2) for state, seconds in days.of_a_chip().items()},
        "core_ms_of_a_chip": round(core_ms, 1),
        **{f"{step}_ms_of_a_chip": round(told[f"{step}_s"] * 1e3, 1) for step in ("read", "stage")},
        f"cores_at_{RATE}_chips_per_s": round(core_ms * RATE / 1e3, 2),
        "cores": cores,
    }
    if keep:
        file = keep / "busy.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, f"{side} px": figures}, indent=1))
        if side == SIDES[0]:
            draw(days, keep / "busy.png")
    return figures


#: A colour for each of `STATES`.
COLOURS = ("#dddddd", "#c9b458", "#d98f3a", "#1f6f8b", "#b5532a", "#8c5a9e", "#6a994e")


def draw(days: Days, path: Path, seconds: float = 4.0) -> None:
    """A few seconds of an actor, from its middle: when the model is at work, and what either call's thread is at."""
    start = days.model[len(days.model) // 2].begun
    rows = {thread: number for number, thread in enumerate(sorted({span.thread for span in days.spans}))}
    picture, axes = plt.subplots(figsize=(11, 1.6 + 0.5 * len(rows)), layout="constrained")
    for span in days.spans:
        if span.ended > start and span.begun < start + seconds:
            place = [(span.begun - start, span.ended - span.begun)]
            colour = COLOURS[STATES.index(span.state)]
            axes.broken_barh(place, (rows[span.thread] - 0.35, 0.7), facecolors=colour)
            if span.state == MODEL:
                axes.broken_barh(place, (len(rows) - 0.35, 0.7), facecolors=colour)
    axes.set(xlim=(0, seconds), xlabel="seconds", yticks=range(len(rows) + 1))
    axes.set_yticklabels([*(f"call {number + 1}" for number in rows.values()), "model"])
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    axes.legend(handles, STATES, ncols=len(STATES), frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)
    plt.close(picture)
