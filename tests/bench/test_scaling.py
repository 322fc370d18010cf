"""Chips a second with 1, 2, 4 and 8 actors. GPUs are logical and the model's time is slept: what this shows is whether
reading, staging and the engine keep up with so many actors, not how fast a GPU is.

`make bench` runs it; it leaves `scaling.json` beside this file. The model's time is such that two cores can read and
stage for eight actors: with networks as fast as in `test_busy` each GPU needs cores of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from sleeping_model import run
from textured_world import textured_world

HERE = Path(__file__).resolve().parent

#: Seconds of the model a chip, actors, and chips that each of them gets.
CHIP_S, ACTORS, CHIPS = 0.64, (1, 2, 4, 8), 120

#: Least share of n times one actor's rate that n actors reach.
EFFICIENCY = 0.9


@pytest.mark.bench
def test_eight_actors_make_eight_times_as_many_chips(tmp_path):
    assert all(row["share"] >= EFFICIENCY for row in measure(tmp_path))


def measure(folder: Path) -> list[dict[str, Any]]:
    """Run the job with each number of actors in an empty folder; leaves the figures beside this file, and returns a row
    each."""
    compute = {"gpus_per_actor": 1, "batch": 1, "read_concurrency": 2}
    path = textured_world(folder / "world", ACTORS[-1] * CHIPS, compute)
    rows = []
    for actors in ACTORS:
        # Cores are logical, too: an actor that sleeps takes none.
        told, days = run(path, folder / f"{actors}", chips=actors * CHIPS, gpus=actors, cpus=actors + 1, chip_s=CHIP_S)
        assert len(days) == actors
        # Actors and stagers start one after the other, and on these few cores that takes longer than a chip: what
        # counts is the second half of the time in which all actors are at work.
        first, last = max(day.model[0].begun for day in days), min(day.model[-1].ended for day in days)
        first += (last - first) / 2
        rate = sum(day.made(first, last) for day in days) / (last - first)
        rows.append({
            "actors": actors,
            "chips": told["chips"],
            "chips_per_s": round(rate, 3),
            "ideal": round(actors / CHIP_S, 3),
            "share": round(rate * CHIP_S / actors, 3),
            "busy": round(min(day.busy for day in days), 3),
        })  # fmt: skip
    figures = {"gpus": "logical", "model": f"slept, {CHIP_S} s a chip", "cores": psutil.cpu_count(), "rows": rows}
    (HERE / "scaling.json").write_text(json.dumps(figures, indent=1))
    return rows
