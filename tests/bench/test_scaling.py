"""Chips a second with 1, 2, 4 and 8 actors. GPUs are logical and the model's time is slept: what this shows is whether
reading, staging and the engine keep up with so many actors, not how fast a GPU is.

`make bench` runs it; it leaves `scaling.json` beside this file. The model's time is such that two cores can read and
stage for eight actors: with networks as fast as in `test_busy` each GPU needs cores of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from sleeping_model import run
from textured_world import textured_world

HERE = Path(__file__).resolve().parent

#: Seconds of the model a chip, actors, and chips that each of them gets.
CHIP_S, ACTORS, CHIPS = 0.64, (1, 2, 4, 8), 20

#: Least share of n times one actor's rate that n actors reach.
EFFICIENCY = 0.9


@pytest.mark.bench
def test_eight_actors_make_eight_times_as_many_chips(tmp_path, capsys):
    compute = {"gpus_per_actor": 1, "batch": 1, "read_concurrency": 2}
    path = textured_world(tmp_path / "world", ACTORS[-1] * CHIPS, compute)
    rows = []
    for actors in ACTORS:
        # Cores are logical, too: an actor that sleeps takes none.
        told, days = run(
            path, tmp_path / f"{actors}", chips=actors * CHIPS, gpus=actors, cpus=actors + 1, chip_s=CHIP_S
        )
        assert len(days) == actors
        # Actors start one after the other: what counts is when all are at work.
        first, last = max(day.model[0].begun for day in days), min(day.model[-1].ended for day in days)
        rate = sum(day.made(first, last) for day in days) / (last - first)
        rows.append({
            "actors": actors,
            "chips": told["chips"],
            "chips_per_s": round(rate, 3),
            "ideal": round(actors / CHIP_S, 3),
            "share": round(rate * CHIP_S / actors, 3),
            "busy": round(min(day.busy for day in days), 3),
            "core_ms_of_a_chip": round(told["core_s"] * 1e3),
        })  # fmt: skip
    figures = {"gpus": "logical", "model": f"slept, {CHIP_S} s a chip", "cores": psutil.cpu_count(), "rows": rows}
    (HERE / "scaling.json").write_text(json.dumps(figures, indent=1))
    with capsys.disabled():
        print(f"\nGPUs are logical, the model sleeps {CHIP_S} s a chip; {psutil.cpu_count()} cores read and stage")
        print("  actors  chips/s   ideal  share  least busy  core ms a chip")
        for row in rows:
            print(
                "  {actors:6} {chips_per_s:8.2f} {ideal:7.2f} {share:6.1%} {busy:11.1%} {core_ms_of_a_chip:15}".format(
                    **row
                )
            )
    assert all(row["share"] >= EFFICIENCY for row in rows)
