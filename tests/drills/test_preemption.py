"""Machines of a run are taken away again and again, with notice and without: what of its work is lost, and whether the
cube is the undisturbed one.

An hour, in which 30 % of the actors are preempted every two minutes, at a scale: everything that takes its time in the
drill, chips, notices and the time between them, is so many times as fast. What the engine takes is not: Ray's processes
and an actor begin as slowly as ever, and who listens for a notice asks once a second. `SCALE=4 make drills` for a
longer hour, `SEED=7` for other victims.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drill_report import table, write_section
from preempted_runs import Diaries, Nodes, Outcome, carried_out, configured
from test_many_chips import world

SCALE, SEED = float(os.environ.get("SCALE", "8")), int(os.environ.get("SEED", "20240601"))

#: Actors, the share of them that is preempted, and how often, in seconds of the real hour.
ACTORS, SHARE, EVERY_S, HOUR_S = 4, 0.3, 120.0, 3600.0

#: Seconds of a chip, chips of a batch: a GPU that does not belong to the fast ones.
CHIP_S, BATCH = 2.4, 4

#: Seconds from notice to end: as Google Cloud gives them.
NOTICE_S = 30.0

#: Chips of the job: for most of the hour.
CHIPS = int(os.environ.get("CHIPS", str(round(0.6 * ACTORS * HOUR_S / CHIP_S))))

#: Share of the work that may be lost with notices.
LOST = 0.03


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_machines_that_are_taken_away_cost_a_run_next_to_no_work(tmp_path, capsys):
    path = world(tmp_path / "world", CHIPS)
    local = configured(path, tmp_path / "undisturbed", batch=BATCH)
    undisturbed = carried_out(local, 0.0, lambda _: None)
    rows = []
    for name, notice_s in (("notice of 30 s", NOTICE_S), ("none", 0.0)):
        ended, taken, same = disturbed(path, tmp_path / name.split()[0], notice_s, undisturbed)
        rows.append((name, taken, ended, same))
        with capsys.disabled():
            print(*cells(name, taken, ended, same), flush=True)
    write_section("Preemption", told(rows))
    assert all(same for *_, same in rows)
    with_notice = rows[0][2]
    assert with_notice.diaries.lost / with_notice.diaries.begun.total() <= LOST


def disturbed(path: Path, folder: Path, notice_s: float, undisturbed: Outcome) -> tuple[Outcome, int, bool]:
    """One run, how many of its machines were taken away, and whether its cube is the undisturbed one."""
    nodes = Nodes(folder.parent / f"notices-{notice_s:g}", ACTORS)
    try:
        job = configured(
            path, folder, batch=BATCH, address=nodes.address, gpus_per_actor=1, actors_max=ACTORS, preemption="file"
        )
        ended = carried_out(job, CHIP_S / SCALE, lambda runs: take_away(nodes, folder, runs, notice_s / SCALE))
    finally:
        nodes.stop()
    return ended, nodes.taken, ended.content == undisturbed.content


def take_away(nodes: Nodes, folder: Path, runs: Callable[[], bool], notice_s: float) -> None:
    """For an hour from the first chip on, if the run lasts as long, notices and ends; each machine is replaced as soon
    as it is gone."""
    while runs() and not Diaries.read(folder / "diaries").begun:
        time.sleep(0.5)
    chance, owed, begun = random.Random(SEED), 0.0, time.monotonic()
    going: list[tuple[float, Any]] = []
    turn = begun + EVERY_S / SCALE
    while runs() and (now := time.monotonic()) < begun + HOUR_S / SCALE:
        if now >= turn:
            turn, owed = turn + EVERY_S / SCALE, owed + SHARE * ACTORS
            for node in nodes.chosen(chance, int(owed)):
                if notice_s:
                    nodes.notify(node, notice_s)
                going.append((time.monotonic() + notice_s, node))
                owed -= 1
        for ends, node in list(going):
            if ends <= time.monotonic():
                nodes.take(node)
                going.remove((ends, node))
        nodes.heal()
        time.sleep(0.1)


def cells(name: str, taken: int, ended: Outcome, same: bool) -> tuple[Any, ...]:
    work = ended.diaries
    share = f"{work.lost / work.begun.total():.2%}"
    given_back = round(ended.total("given_back", "chips"))
    minutes = f"{ended.seconds * SCALE / 60:.0f}"
    return name, taken, work.actors, work.begun.total(), work.lost, share, given_back, minutes, "same" if same else "NO"


def told(rows: list[tuple[str, int, Outcome, bool]]) -> str:
    """The section of the report."""
    chips = len(rows[0][2].diaries.begun)
    lines = [
        f"A run of {chips:,} chips on {ACTORS} raylets, with a logical GPU and an actor each. In an hour {SHARE:.0%}",
        "of them are taken away every two minutes: their processes hear SIGTERM and are killed, and a new one comes.",
        f"The drill is {SCALE:g} times as fast as that: {EVERY_S / SCALE:g} s from one turn to the next,",
        f"{NOTICE_S / SCALE:g} s of notice for {NOTICE_S:g} s, {CHIP_S / SCALE:g} s for a chip of {CHIP_S:g} s,",
        f"in batches of {BATCH}, two at a time on a GPU. Ray and actors begin as slowly as ever: that counts {SCALE:g}",
        "times.",
        "Lost are computations that were broken off or done once more; given back are chips that an actor",
        f"knew not to end in time. Minutes are of the real hour. Seed {SEED}.",
        "",
        table(
            ("notice", "taken away", "actors begun", "computations", "lost", "share", "given back", "minutes", "cube"),
            (cells(*row) for row in rows),
        ),
    ]
    return "\n".join(lines)
