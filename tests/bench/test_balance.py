"""How long scenes take to be balanced and how much memory, from a country to a continent; and how well it comes out.

The scenes are made up (`balance_world.py`): no pixel is read, so this is what one core of the driver does. `make bench`
runs it; it leaves `balance.json` and `balance.png` beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

HERE = Path(__file__).resolve().parent

#: Scenes that are balanced.
SIZES = (1_500, 3_750, 7_500, 15_000)

#: Seconds, and gigabytes, that the largest number may take.
MOST_S, MOST_GB = 300, 4


@pytest.mark.bench
def test_a_continent_is_balanced_in_minutes_and_no_scene_costs_more_among_many(capsys):
    figures = []
    for count in SIZES:
        figures.append(measured(count))
        with capsys.disabled():
            print(f"\n{figures[-1]}")
    last = figures[-1]
    assert last["overlaps"] > 100_000
    assert last["seconds"] <= MOST_S
    assert last["peak_gb"] <= MOST_GB
    # Core seconds: what else the machine does counts less.
    each = [(one["survey_core_s"] + one["solve_core_s"]) / one["overlaps"] for one in figures]
    assert max(each) <= 1.5 * min(each)
    for one in figures:
        assert one["groups"] == 1
        assert one["hazy"] == 0
        assert one["off_after_dn"] <= 0.1 * one["off_before_dn"]
    (HERE / "balance.json").write_text(json.dumps(figures, indent=1))
    draw(figures, HERE / "balance.png")


def measured(count: int) -> dict[str, Any]:
    """Balance so many scenes in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(HERE / "balance_world.py"), str(count)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def draw(figures: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory over overlaps."""
    overlaps = np.array([figure["overlaps"] for figure in figures]) / 1e3
    picture, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for key, label, colour in (("survey_s", "compare", "#7fb3c4"), ("seconds", "and solve", "#1f6f8b")):
        left.plot(overlaps, [figure[key] for figure in figures], "o-", label=label, color=colour)
    left.set(xlabel="overlaps (thousands)", ylabel="wall clock (s)", ylim=(0, None), xlim=(0, None))
    left.legend(frameon=False)
    right.plot(overlaps, [figure["peak_gb"] for figure in figures], "o-", color="#b5532a")
    right.set(xlabel="overlaps (thousands)", ylabel="peak memory (GB)", ylim=(0, None), xlim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    last = figures[-1]
    picture.suptitle(
        f"Gain and offset of {last['scenes']:,} scenes: they differ by {last['off_before_dn']:.0f} DN before, "
        f"{last['off_after_dn']:.0f} DN after",
        fontsize=11,
    )
    picture.savefig(path, dpi=110)
    plt.close(picture)
