"""Actors of a run are taken away again and again, with notice and without: what of its work is lost, and whether the
cube is the undisturbed one.

An hour, in which 30 % of the actors are preempted every two minutes, at a scale: everything that takes its time in the
drill, chips, notices and the time between them, is so many times as fast. What the engine takes is not: an actor begins
as slowly as ever. `SCALE=8 make drills` for a shorter hour, `SEED=7` for other victims.

Then whole machines of a small cluster, as fast as they really are: what was read, made and staged on them goes too.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from drill_report import table, write_section
from machines import Machines, machines_in
from preempted_runs import Actors, Diaries, Outcome, carried_out, configured
from test_many_chips import world

SCALE, SEED = float(os.environ.get("SCALE", "4")), int(os.environ.get("SEED", "20240601"))

#: Actors, the share of them that is preempted, and how often, in seconds of the real hour.
ACTORS, SHARE, EVERY_S, HOUR_S = 4, 0.3, 120.0, 3600.0

#: Seconds of a chip, chips of a batch: a GPU that does not belong to the fast ones.
CHIP_S, BATCH = 2.4, 4

#: Seconds from notice to end: as Google Cloud gives them.
NOTICE_S = 30.0

#: Actors that are taken away in the hour.
DUE = round(SHARE * ACTORS * HOUR_S / EVERY_S)

#: Chips of the job: for a little more than the hour.
CHIPS = int(os.environ.get("CHIPS", str(round(1.2 * ACTORS * HOUR_S / CHIP_S))))

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
    rows = compared(path, tmp_path, ended)
    with capsys.disabled():
        print(*(cells(row) for row in rows), sep="\n", flush=True)
    write_section("Preemption", told(rows))
    judge(rows, DUE)


class Row(NamedTuple):
    """A disturbed run: its notice, how many were taken away, how it ended, whether with the undisturbed run's bytes."""

    notice: str
    taken: int
    ended: Outcome
    same: bool

    @property
    def lost(self) -> float:
        """Share of all computations."""
        return self.ended.diaries.lost / self.ended.diaries.begun.total()


def compared(path: Path, folder: Path, ended: list[tuple[int, Outcome]]) -> list[Row]:
    """The run with notice and the one without beside one that is not disturbed."""
    whole = carried_out(configured(path, folder / "undisturbed", batch=BATCH), 0, 0.0, lambda _: None)
    names = f"{NOTICE_S:g} s", "none"
    return [Row(name, *one, one[1].content == whole.content) for name, one in zip(names, ended, strict=True)]


def judge(rows: list[Row], due: int) -> None:
    with_notice, _ = rows
    assert all(row.same and row.taken == due for row in rows)
    assert with_notice.lost <= LOST


def take_away(actors: Actors, notice_s: float, runs: Callable[[], bool]) -> None:
    """From the first chip on, for an hour and until all that are due have been taken, if the run lasts as long: notices
    and ends. The engine starts each anew."""
    while runs() and not actors.at_work():
        time.sleep(0.5)
    chance, owed, begun = random.Random(SEED), 0.0, time.monotonic()
    going: list[tuple[float, int]] = []
    turn = begun + EVERY_S / SCALE
    while runs() and (actors.taken < DUE or time.monotonic() < begun + HOUR_S / SCALE):
        if time.monotonic() >= turn:
            turn, owed = turn + EVERY_S / SCALE, owed + SHARE * ACTORS
        left = DUE - actors.taken - len(going)
        for actor in actors.chosen(chance, min(int(owed + 1e-9), left)):
            if notice_s:
                actors.notify(actor)
            going.append((time.monotonic() + notice_s, actor))
            owed -= 1
        for ends, actor in list(going):
            if ends <= time.monotonic():
                actors.take(actor)
                going.remove((ends, actor))
        time.sleep(0.05)


def cells(row: Row) -> tuple[Any, ...]:
    work = row.ended.diaries
    minutes = f"{row.ended.seconds * SCALE / 60:.0f}"
    counts = row.taken, work.actors, work.begun.total(), work.lost
    return row.notice, *counts, f"{row.lost:.2%}", minutes, "same" if row.same else "NO"


def told(rows: list[Row]) -> str:
    """The section of the report."""
    chips = len(rows[0].ended.diaries.begun)
    lines = [
        f"A run of {chips:,} chips by {ACTORS} actors, each with a logical GPU. In an hour {SHARE:.0%} of them are",
        "taken away every two minutes: the process hears SIGTERM and is killed when its notice is over, or it is",
        f"killed without a word; Ray starts each anew. The drill is {SCALE:g} times as fast as that:",
        f"{EVERY_S / SCALE:g} s from one turn to the next, {NOTICE_S / SCALE:g} s of notice for {NOTICE_S:g} s,",
        f"{CHIP_S / SCALE:g} s for a chip of {CHIP_S:g} s, in batches of {BATCH}, two at a time on a GPU. Actors begin",
        f"as slowly as ever: that counts {SCALE:g} times. Lost are computations that were broken off or done twice.",
        f"{DUE} were to be taken away. Minutes are of the real hour. Both runs were at work at the same time.",
        f"Seed {SEED}.",
        "",
        table(
            ("notice", "taken away", "actors begun", "computations", "lost", "share", "minutes", "cube"),
            (cells(row) for row in rows),
        ),
    ]
    return "\n".join(lines)


#: Machines of the cluster that hold an actor each; how many are taken away, and how often, in seconds.
MACHINES, TAKEN, TURN_S = 2, 6, 45.0


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_machines_that_are_taken_away_cost_a_run_next_to_no_work(tmp_path, capsys):
    chips = TAKEN * TURN_S * MACHINES / CHIP_S
    path = world(tmp_path / "world", round(1.9 * chips))  # some lie outside; more than enough

    def disturbed(notice_s: float) -> tuple[int, Outcome]:
        folder = tmp_path / f"machines-{notice_s:g}"
        with machines_in(folder) as machines:
            machines.head()
            compute = dict(address=machines.address, wait_minutes=2, batch=BATCH, gpus_per_actor=1, actors_max=MACHINES)
            job = configured(path, folder / "job", **compute)
            taken: list[int] = []
            ended = carried_out(job, None, CHIP_S, partial(take_machines, machines, notice_s, folder / "job", taken))
        return len(taken), ended

    ended = [disturbed(notice_s) for notice_s in (NOTICE_S, 0.0)]
    rows = compared(path, tmp_path, ended)
    with capsys.disabled():
        print(*(of_machines(row) for row in rows), sep="\n", flush=True)
    write_section("Preempted machines", told_of_machines(rows))
    judge(rows, TAKEN)


def take_machines(machines: Machines, notice_s: float, job: Path, taken: list[int], runs: Callable[[], bool]) -> None:
    """The one that is there longest goes at each turn; another comes as soon as that is known."""
    there = [machines.join() for _ in range(MACHINES)]
    while runs() and not Diaries.read(job / "diaries").begun:
        time.sleep(0.5)
    for turn in range(TAKEN):
        until(runs, TURN_S - notice_s if turn else TURN_S / 2)
        if not runs():
            return
        goes = there.pop(0)
        if notice_s:
            machines.notify(goes, notice_s)
            there.append(machines.join())
            until(runs, notice_s)
        machines.take(goes)
        taken.append(goes)
        if not notice_s:
            there.append(machines.join())


def until(runs: Callable[[], bool], seconds: float) -> None:
    """Wait, as long as a job runs."""
    ends = time.monotonic() + seconds
    while runs() and time.monotonic() < ends:
        time.sleep(0.1)


def of_machines(row: Row) -> tuple[Any, ...]:
    work, given_back = row.ended.diaries, int(row.ended.total("given_back", "chips"))
    counts = row.taken, work.begun.total(), work.lost
    return row.notice, *counts, f"{row.lost:.2%}", given_back, f"{row.ended.seconds:.0f}", "same" if row.same else "NO"


def told_of_machines(rows: list[Row]) -> str:
    """The section of the report."""
    chips = len(rows[0].ended.diaries.begun)
    lines = [
        f"A run of {chips:,} chips by {MACHINES} actors, each on a machine of its own: a raylet with a logical GPU and",
        "two cores, its workers and its object store, beside a head that computes nothing, all on one computer.",
        f"Every {TURN_S:g} s the machine that has been there longest hears by a file that it goes in {NOTICE_S:g} s,",
        "and then all of its processes are killed; or they are killed without a word. Another joins as soon as that",
        f"is known. Nothing is faster than it really is: {CHIP_S:g} s a chip, in batches of {BATCH}, two at a time on",
        "a GPU. Given back are chips that an actor knew it could not end in time.",
        "",
        table(
            ("notice", "taken away", "computations", "lost", "share", "given back", "seconds", "cube"),
            (of_machines(row) for row in rows),
        ),
    ]
    return "\n".join(lines)
