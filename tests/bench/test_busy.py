"""How much of the time the model of an actor is at work, and what it waits for else: real files are read and real
objects staged on a local disk, the model sleeps for as long as a GPU would compute.

`make bench` runs it; it leaves `busy.png` and `busy.json` beside this file.

The time of a chip is the least that a large GPU can take with the published networks: 192 px need about 11 TFLOP at
the sampler's 20 steps, of which an H100 does 40 % of 790 TFLOP/s in bfloat16 at best; what is around the networks, and
layers that do not reach it, make that 2.25 times as long.
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
CHIP_S = float(os.environ.get("CHIP_S", round(2.25 * 11 / (0.4 * 790), 3)))

#: Chips of a batch, and in all.
BATCH, CHIPS = 4, 400

#: Least share of the time between its first and last chip that the model is at work.
BUSY = 0.9


@pytest.mark.bench
def test_the_model_is_at_work_nine_tenths_of_the_time(tmp_path):
    assert measure(tmp_path)["busy"] >= BUSY


def measure(folder: Path) -> dict[str, Any]:
    """Run the job in an empty folder; leaves picture and figures beside this file, and returns the figures."""
    path = textured_world(folder / "world", CHIPS, {"gpus_per_actor": 1, "batch": BATCH})
    told, (days,) = run(path, folder / "diaries", chips=CHIPS, gpus=1, cpus=psutil.cpu_count() or 1, chip_s=CHIP_S)
    assert days.chips == told["chips"]
    assert all(before.ended <= after.begun for before, after in pairwise(days.model))  # one call at a time
    figures = {
        "chips": days.chips,
        "model_ms": round(CHIP_S * 1e3, 1),
        "batch": BATCH,
        "busy": round(days.busy, 4),
        "idle": {state: round(share, 4) for state, share in days.idle().items()},
        "thread_ms_of_a_chip": {state: round(seconds * 1e3, 2) for state, seconds in days.of_a_chip().items()},
        **{f"{step}_ms_of_a_chip": round(told[f"{step}_s"] * 1e3, 1) for step in ("core", "read", "stage")},
        "cores": psutil.cpu_count(),
    }
    (HERE / "busy.json").write_text(json.dumps(figures, indent=1))
    draw(days, HERE / "busy.png")
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
