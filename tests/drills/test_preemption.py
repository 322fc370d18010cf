"""Actors of a run are taken away again and again, with notice and without: what of its work is lost, and whether the
cube is the undisturbed one.

An hour, in which 30 % of the actors are preempted every two minutes, at a scale: everything that takes its time in the
drill, chips, notices and the time between them, is so many times as fast. What the engine takes is not: an actor begins
as slowly as ever. `SCALE=4 make drills` for a longer hour, `SEED=7` for other victims.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from drill_report import table, write_section
from preempted_runs import Actors, Outcome, carried_out, configured
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
def test_actors_that_are_taken_away_cost_a_run_next_to_no_work(tmp_path, capsys):
    path = world(tmp_path / "world", CHIPS)

    def disturbed(notice_s: float) -> tuple[int, Outcome]:
        folder = tmp_path / f"notice-{notice_s:g}"
        actors = Actors(folder / "diaries")
        job = configured(path, folder, batch=BATCH, gpus_per_actor=1, actors_max=ACTORS)
        ended = carried_out(job, ACTORS, CHIP_S / SCALE, partial(take_away, actors, notice_s / SCALE))
        return actors.taken, ended

    with ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(disturbed, notice_s) for notice_s in (NOTICE_S, 0.0)]
        ended = [one.result() for one in begun]
    whole = carried_out(configured(path, tmp_path / "undisturbed", batch=BATCH), 0, 0.0, lambda _: None)
    names = f"{NOTICE_S:g} s", "none"
    rows = [(name, taken, one, one.content == whole.content) for name, (taken, one) in zip(names, ended, strict=True)]
    with capsys.disabled():
        print(*(cells(*row) for row in rows), sep="\n", flush=True)
    write_section("Preemption", told(rows))
    assert all(same for *_, same in rows)
    with_notice = rows[0][2]
    assert with_notice.diaries.lost / with_notice.diaries.begun.total() <= LOST


def take_away(actors: Actors, notice_s: float, runs: Callable[[], bool]) -> None:
    """For an hour from the first chip on, if the run lasts as long, notices and ends; the engine starts each anew."""
    while runs() and not actors.at_work():
        time.sleep(0.5)
    chance, owed, begun = random.Random(SEED), 0.0, time.monotonic()
    going: list[tuple[float, int]] = []
    turn = begun + EVERY_S / SCALE
    while runs() and (now := time.monotonic()) < begun + HOUR_S / SCALE:
        if now >= turn:
            turn, owed = turn + EVERY_S / SCALE, min(owed + SHARE * ACTORS, ACTORS)
            for actor in actors.chosen(chance, int(owed)):
                if notice_s:
                    actors.notify(actor)
                going.append((time.monotonic() + notice_s, actor))
                owed -= 1
        for ends, actor in list(going):
            if ends <= time.monotonic():
                actors.take(actor)
                going.remove((ends, actor))
        time.sleep(0.05)


def cells(name: str, taken: int, ended: Outcome, same: bool) -> tuple[Any, ...]:
    work = ended.diaries
    share = f"{work.lost / work.begun.total():.2%}"
    minutes = f"{ended.seconds * SCALE / 60:.0f}"
    return name, taken, work.actors, work.begun.total(), work.lost, share, minutes, "same" if same else "NO"


def told(rows: list[tuple[str, int, Outcome, bool]]) -> str:
    """The section of the report."""
    chips = len(rows[0][2].diaries.begun)
    lines = [
        f"A run of {chips:,} chips by {ACTORS} actors, each with a logical GPU. In an hour {SHARE:.0%} of them are",
        "taken away every two minutes: the process hears SIGTERM and is killed when its notice is over, or it is",
        f"killed without a word; Ray starts each anew. The drill is {SCALE:g} times as fast as that:",
        f"{EVERY_S / SCALE:g} s from one turn to the next, {NOTICE_S / SCALE:g} s of notice for {NOTICE_S:g} s,",
        f"{CHIP_S / SCALE:g} s for a chip of {CHIP_S:g} s, in batches of {BATCH}, two at a time on a GPU. Actors begin",
        f"as slowly as ever: that counts {SCALE:g} times. Lost are computations that were broken off or done twice.",
        f"Of {round(SHARE * ACTORS * HOUR_S / EVERY_S)} that were to be taken away those count that were there:",
        "where other work keeps the cores busy, one takes minutes of the real hour to begin.",
        f"Minutes are of the real hour. Both runs were at work at the same time. Seed {SEED}.",
        "",
        table(
            ("notice", "taken away", "actors begun", "computations", "lost", "share", "minutes", "cube"),
            (cells(*row) for row in rows),
        ),
    ]
    return "\n".join(lines)
