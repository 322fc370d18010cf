"""Whole runs with Ray, in which one process kills itself at a request of a store: the driver, or the worker that has a
task. The command is repeated where it ended with that, and its cube is the undisturbed one."""

from __future__ import annotations

import itertools
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from drill_report import table, write_section
from dying import Order, Victim
from whole_runs import Job, wait_for

from difffusr.pipeline.scenes.synthetic.world import DemoWorld

#: What is said of a configuration so that its pixels are others.
OTHER = {"model": {"sampler_steps": 4}}


@dataclass(frozen=True)
class Point:
    """Where somebody is killed.

    Attributes:
        before: which of the prepared states the job begins with: "nothing", "chips" (there are shards, and the chips
            that they were made of), "shards" (all of them are written), "published", "revised" (published twice).
        words: the command, `run` by default.
        other: whether the configuration has changed since.
    """

    phase: str
    at: int
    before: str = "shards"
    worker: bool = False
    other: bool = False
    words: tuple[str, ...] = ("run",)
    name: str = ""

    @property
    def command(self) -> str:
        """For the report."""
        changed = " (another configuration)" if self.other else ""
        return f"{' '.join(self.words)}{changed}, {self.before} before"


#: Of both kinds of stores.
POINTS = [
    Point("begin", 1, "nothing"),
    Point("shards", 2, "nothing", worker=True),
    Point("overviews", 1, worker=True),
    Point("overviews", 1, worker=True, name="set or exchange"),
    Point("publish", 6),
    Point("deletion of chips", 1, "nothing"),
    Point("deletion of chips that were left", 2, "chips"),
    Point("publish", 3, "published", other=True),
    Point("rollback", 2, "revised", words=("rollback",)),
    Point("rollback", 6, "revised", words=("rollback",)),
]

#: Of a plain store, which makes many requests, and has objects to delete.
MORE = [
    Point("publish", 60),
    Point("overviews", 9, worker=True),
    Point("settling", 2, "published", other=True),
    Point("deletion", 25, "revised", other=True),
    Point("rollback", 60, "revised", words=("rollback",)),
]

#: Ends that are as they should be. Who takes over with another plan writes other objects.
GOOD = ("same", "same to readers")

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Killed:
    """One kill, and how it ended: "same", or what was wrong."""

    kind: str
    point: Point
    victim: Victim
    starts: int
    ended: str


@dataclass
class Runs:
    """Runs on one kind of store.

    Attributes:
        kind: "plain" or "Icechunk".
        states: prepared jobs, by name.
        wanted: what an undisturbed command leaves: content and history, by what it begins with and what it is.
    """

    kind: str
    world: DemoWorld
    folder: Path
    states: dict[str, Job] = field(default_factory=dict)
    wanted: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    killed: list[Killed] = field(default_factory=list)

    def fresh(self) -> Job:
        """Nothing but a configuration."""
        url = "icechunk+./cube" if self.kind == "Icechunk" else "cube.zarr"
        # Each revision is deleted with the next but one.
        return Job.write(self.world, self.new_folder(), store={"url": url, "keep_revisions": 1})

    def new_folder(self) -> Path:
        return self.folder / self.kind / str(next(_NUMBERS))

    def prepare(self, *names: str) -> None:
        """The states to begin with; those of runs that have not ended are left by drivers that are killed, too."""
        for name, phase in (("chips", "deletion of chips"), ("shards", "overviews")):
            if name in names:
                self.states[name] = self._died(self.fresh(), Point(phase, 1, "nothing"))[0]
        for name, before, other in (("published", "", False), ("revised", "published", True)):
            if name in names:
                job = self.states[before].copy(self.new_folder()) if before else self.fresh()
                job.changed(**(OTHER if other else {}))
                ended = job.call()
                assert ended.code == 0, ended.said
                self.states[name] = job

    def job(self, point: Point) -> Job:
        """A job at the state that a point begins with."""
        job = self.fresh() if point.before == "nothing" else self.states[point.before].copy(self.new_folder())
        if point.other:
            steps = {"published": 4, "revised": 5}[point.before]
            job.changed(model={"sampler_steps": steps})
        return job

    def undisturbed(self, point: Point) -> Any:
        """What a command leaves that nobody kills."""
        before = "nothing" if point.before in ("chips", "shards") else point.before
        key = before, point.other, point.words
        if key not in self.wanted:
            if key == ("nothing", False, ("run",)) and "published" in self.states:
                job = self.states["published"]
            else:
                job = self.job(Point(point.phase, 0, key[0], other=point.other, words=point.words))
                ended = job.call(*point.words)
                assert ended.code == 0, ended.said
            self.wanted[key] = job.content(), job.told()
        return self.wanted[key]

    def kill(self, point: Point) -> Killed:
        """One kill, and the command repeated if it has ended with that."""
        wanted = self.undisturbed(point)
        job, victim, code = self._died(self.job(point), point)
        starts = 1
        said = ""
        while code != 0 and starts < 3:
            ended = job.call(*point.words)
            code, said, starts = ended.code, ended.said, starts + 1
        if code != 0:
            how = f"exit code {code}: {said}"
        elif (job.content(), job.told()) != wanted:
            how = f"another state in {job.config.parent}, history {job.told()}"
        else:
            how = "same"
            shutil.rmtree(job.config.parent)
        return Killed(self.kind, point, victim, starts, how)

    def _died(self, job: Job, point: Point) -> tuple[Job, Victim, int]:
        """Let a command run into its point; returns also how it ended: 0 where others went on."""
        note = self.folder / f"{self.kind}-killed-{next(_NUMBERS)}.json"
        ended = job.call(*point.words, order=Order(str(note), point.at, point.phase, point.name, worker=point.worker))
        victim = Victim.noted(note)
        assert victim is not None, f"{point}: nobody came to it: {ended.said}"
        assert victim.phase == point.phase
        wait_for(lambda: not victim.is_there(), 20)
        if point.worker:
            assert victim.called.startswith("ray::"), victim
            assert "Traceback" not in ended.said
        else:
            assert ended.code == -signal.SIGKILL, ended.said
        return job, victim, ended.code


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_overview_s_worker_is_killed_goes_on(smallest_world, tmp_path):
    runs = Runs("plain", smallest_world, tmp_path)
    runs.prepare("shards")
    killed = runs.kill(Point("overviews", 1, worker=True, name="set or exchange"))
    assert killed.ended == "same"
    assert killed.victim.called.startswith("ray::write_overview")


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_runs_in_which_one_process_is_killed_end_with_the_same_cube(smallest_world, tmp_path, capsys):
    missed: list[str] = []

    def all_of(kind: str, points: list[Point]) -> list[Killed]:
        runs, killed = Runs(kind, smallest_world, tmp_path), []
        runs.prepare("chips", "shards", "published", "revised")
        for do in (*(partial(runs.kill, point) for point in points), partial(replanned_takeover, runs)):
            try:
                killed.append(do())
                said = ", ".join(map(str, cells(killed[-1])))
            except AssertionError as error:
                said = f"{do.args}: {error}"
                missed.append(said)
            with capsys.disabled():
                print(f"{kind}: {said}", flush=True)
        return killed

    with ThreadPoolExecutor(2) as pool:
        found = pool.map(all_of, ("plain", "Icechunk"), (POINTS + MORE, POINTS))
        killed = [one for some in found for one in some]
    wrong = [one for one in killed if one.ended not in GOOD]
    lines = [
        f"{len(killed)} commands over the smallest world in which one process ended itself by SIGKILL at a request;",
        "all processes are the command's own, with Ray. Where a worker alone died, the command went on (1 start); else",
        f"it was repeated. Ended with the same: {len(killed) - len(wrong)}. No chance in it: no seed.",
        "",
        table(("store", "command", "killed", "in", "at request", "starts", "ended"), map(cells, killed)),
    ]
    write_section("Kills in whole runs", "\n".join(lines))
    assert not wrong
    assert not missed


def replanned_takeover(runs: Runs) -> Killed:
    """The driver is killed when all shards are written, and the configuration changed: what readers see is what they
    see of a cube that was made with it from the beginning."""
    fresh = runs.fresh()
    fresh.changed(**OTHER)
    assert fresh.call().code == 0
    job, victim, _ = runs._died(runs.states["chips"].copy(runs.new_folder()), Point("overviews", 1, "chips"))
    job.changed(**OTHER)
    ended = job.call()
    same = ended.code == 0 and (job.pixels(), job.told()) == (fresh.pixels(), fresh.told())
    how = "same to readers" if same else f"otherwise in {job.config.parent}: {ended.said}"
    return Killed(runs.kind, Point("overviews", 1, "chips", words=("run",), other=True), victim, 2, how)


def cells(one: Killed) -> tuple[Any, ...]:
    who = one.victim.called.split()[0] if one.point.worker else "driver"
    place = f"{one.victim.phase}: {one.victim.request}"
    ended = one.ended if one.ended in GOOD else f"NOT THE SAME: {one.ended.splitlines()[0]}"
    return one.kind, one.point.command, who, place, one.victim.at, one.starts, ended
