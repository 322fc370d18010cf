"""`difffusr continent` as it is killed: its driver, and workers with a shard or an overview, at random requests of a
store and at random moments, while the cube is planned, made, published, and made anew where a shard of a zone was
published again. The same command follows until it ends; the cube is then the undisturbed one.

`SEED=7` for other requests and moments.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from continental import Making, continent_config
from drill_report import table, write_section
from dying import Order, Victim
from killing import is_called, kill_process
from two_zones import GRID, publish_zones, waves, windows_at
from whole_runs import Begun, Ended, Job, sha256, wait_for

from difffusr.pipeline.storage.objects import Storage

SEED = int(os.environ.get("SEED", "20240601"))

LON, LAT, ZONES = 12.0, 48.0, (32632, 32633)

#: What is killed by chance, by the words of its command line; the driver is known.
DRIVER, WARPING, HALVING = "driver", "ray::write_warped", "ray::write_overview"

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class At:
    """A kill at a request.

    Attributes:
        most: it is one of the first so many of its phase, by chance.
    """

    phase: str
    most: int
    worker: bool = False


@dataclass(frozen=True)
class When:
    """A kill at a moment, by chance within a stage of the run.

    Attributes:
        who: one of the above.
    """

    stage: str
    who: str


#: Workers that are killed one after the other.
WORKERS = (At("warping", 40, worker=True), At("shards", 9, worker=True), At("overviews", 12, worker=True))

#: What is killed from one start of the command to the next, and so on until it is done: where workers alone are killed
#: it goes on by itself. By what readers see before.
ROUNDS: dict[str, list[list[list[At | When]]]] = {
    "nothing": [
        [[At("planning", 3)], [At("begin", 10)], [*WORKERS, At("publish", 5)], [At("publish", 9)], [At("publish", 80)]],
        [[When("plan", DRIVER)], [When("shards", WARPING), When("shards", DRIVER)], [When("overviews", HALVING)]],
    ],
    "published, and a shard of a zone anew": [
        [[At("planning", 3)], [*WORKERS, At("settling", 9), At("publish", 5)], [At("publish", 9)]],
        [[When("shards", WARPING), When("overviews", DRIVER)], [When("publish", DRIVER)]],
    ],
}


@dataclass(frozen=True)
class Death:
    """Who was killed, in what, at which request or when."""

    who: str
    during: str
    at: str


@dataclass
class Round:
    """One cube: what was killed while it was made, and what came of it: "same", or what was wrong."""

    store: str
    before: str
    deaths: list[Death] = field(default_factory=list)
    starts: int = 0
    ended: str = ""


@dataclass
class Continents:
    """Cubes of one CRS on one kind of store.

    Attributes:
        kind: "plain" or "Icechunk".
        zones: the cube that they are made of.
        published: a job whose cube readers see; None before the first.
        wanted: what an undisturbed command leaves: content and history.
        lasts: seconds that each of its stages took.
    """

    kind: str
    zones: Path
    folder: Path
    chance: random.Random
    published: Job | None = None
    wanted: Any = None
    lasts: dict[str, float] = field(default_factory=dict)

    def words(self) -> tuple[str, ...]:
        """The command, but for the file that it writes its configuration to."""
        target = "icechunk+./cube" if self.kind == "Icechunk" else "cube.zarr"
        sizes = ("--shard-px", "128", "--chunk-px", "64")
        return "continent", str(self.zones), target, "--crs", "EPSG:3035", *sizes, "--config"

    def job(self) -> Job:
        """What a round begins with."""
        folder = self.folder / self.kind / str(next(_NUMBERS))
        if self.published is not None:
            return self.published.copy(folder)
        folder.mkdir(parents=True)
        return Job(folder / "continent.yaml")

    def undisturbed(self) -> Job:
        """A cube that nobody disturbs, and how long that takes."""
        job = self.job()
        ended = job.call(*self.words())
        assert ended.code == 0, ended.said
        made = job.content(), job.told()
        assert made != self.wanted, "there was nothing to make"
        self.wanted = made
        self.lasts = {stage: float(seconds) for stage, seconds in re.findall(r" (\w+): done in (\d+) s", ended.said)}
        return job

    def disturbed(self, before: str, starts: Sequence[Sequence[At | When]]) -> Round:
        """A cube that is made with kills, and compared."""
        this, job = Round(self.kind, before), self.job()
        for kills in (*starts, (), ()):
            this.starts += 1
            ended = self._started(job, kills, this)
            if ended.code == 0:
                break
            if ended.code != -signal.SIGKILL:
                this.ended = f"exit code {ended.code}: {ended.said}"
                return this
        if "Traceback" in ended.said or ended.code != 0:
            this.ended = f"exit code {ended.code}: {ended.said}"
        elif (job.content(), job.told()) != self.wanted:
            this.ended = f"another cube in {job.config.parent}, history {job.told()}"
        else:
            this.ended = "same"
            shutil.rmtree(job.config.parent)
        return this

    def _started(self, job: Job, kills: Sequence[At | When], this: Round) -> Ended:
        """Start the command once, kill, and see how it ends."""
        points = [kill for kill in kills if isinstance(kill, At)]
        notes = [self.folder / f"{self.kind}-killed-{next(_NUMBERS)}.json" for _ in points]
        orders = [
            Order(str(note), self.chance.randint(1, point.most), point.phase, worker=point.worker)
            for note, point in zip(notes, points, strict=True)
        ]
        at_work = job.begin(*self.words(), order=orders[0] if orders else None, more=orders[1:])
        began: dict[str, float] = {}
        for kill in kills:
            if isinstance(kill, When) and (death := self._kill(at_work, kill, began)) is not None:
                this.deaths.append(death)
        ended = at_work.ended()
        for note, point in zip(notes, points, strict=True):
            if (victim := Victim.noted(note)) is not None:
                wait_for(lambda victim=victim: not victim.is_there(), 20)
                assert victim.called.startswith("ray::") == point.worker, victim
                who = victim.called.split()[0] if point.worker else DRIVER
                this.deaths.append(Death(who, victim.phase, f"{victim.request}, {victim.at}"))
        return ended

    def _kill(self, at_work: Begun, kill: When, began: dict[str, float]) -> Death | None:
        """Kill at a moment of a stage, or soon after there is somebody to kill; None where it ends before.

        Args:
            began: when each stage was seen to begin.
        """
        words = "" if kill.who == DRIVER else kill.who
        if not _come(at_work, lambda: f" {kill.stage}: begun" in at_work.words.read_text()):
            return None
        wait = self.chance.uniform(0, 0.9 * max(0.5, self.lasts[kill.stage]))
        began.setdefault(kill.stage, time.monotonic())
        if words:  # workers take a while to start, and what they do is soon done then
            _come(at_work, lambda: bool(_called(at_work, words)))
            wait = min(wait, 0.5)
        moment = time.monotonic() + wait
        _come(at_work, lambda: time.monotonic() >= moment)
        if not _come(at_work, lambda: self._killed_one(at_work, words)):
            return None
        stages = re.findall(r" (\w+): begun", at_work.words.read_text())
        return Death(kill.who, stages[-1], f"{time.monotonic() - began[kill.stage]:.1f} s after {kill.stage} began")

    def _killed_one(self, at_work: Begun, words: str) -> bool:
        """Whether one of those who are called so was killed; without words, the driver."""
        pids = _called(at_work, words) if words else [at_work.process.pid]
        return bool(pids) and kill_process(self.chance.choice(pids), words)


def _come(at_work: Begun, what: Callable[[], bool]) -> bool:
    """Whether something comes to be while a command is at work."""
    while at_work.process.poll() is None:
        if what():
            return True
        time.sleep(0.01)
    return False


def _called(at_work: Begun, words: str) -> list[int]:
    try:
        return sorted(one.pid for one in at_work.everybody() if is_called(one, words))
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def zones(tmp_path: Path) -> Path:
    """A cube on both sides of 12° E."""
    windows = windows_at(LON, LAT, ZONES, (3, 4))
    publish_zones(Storage(f"{tmp_path}/zones.zarr"), windows, dict.fromkeys(windows, waves(LON, LAT)))
    return tmp_path / "zones.zarr"


def publish_a_shard_anew(zones: Path) -> None:
    """With other pixels."""
    windows = windows_at(LON, LAT, ZONES, (3, 4))
    shard = list(GRID.shards_touching(windows[32632]))[5]
    other = {32632: waves(LON + 0.0003, LAT), 32633: waves(LON, LAT)}
    publish_zones(Storage(str(zones)), windows, other, changed={32632: [shard]}, word="another")


@pytest.mark.parametrize(("phase", "at"), [pytest.param("warping", 30, marks=pytest.mark.slow), ("publish", 9)])
def test_a_continent_that_is_killed_once_ends_as_undisturbed(phase, at, workshop, zones, tmp_path):
    (whole, broken), note = (tmp_path / name for name in ("whole", "broken")), tmp_path / "killed.json"
    configs = [
        continent_config(str(zones), f"{folder}/cube.zarr", shard_px=128, chunk_px=64) for folder in (whole, broken)
    ]
    undisturbed = workshop.begin(Making, config=configs[0])
    dying = workshop.begin(Making, config=configs[1], order=Order(str(note), at, phase))
    assert (undisturbed.ended(), dying.ended()) == (0, -signal.SIGKILL), undisturbed.said + dying.said
    victim = Victim.noted(note)
    assert victim is not None
    assert (victim.pid, victim.phase, victim.at) == (dying.process.pid, phase, at)
    assert objects(broken / "cube.zarr") != objects(whole / "cube.zarr")
    again = workshop.begin(Making, config=configs[1])
    assert again.ended() == 0, again.said
    assert objects(broken / "cube.zarr") == objects(whole / "cube.zarr")


def objects(cube: Path) -> dict[str, str]:
    """sha256 of every object of a plain cube."""
    files = (path for path in sorted(cube.rglob("*")) if path.is_file())
    return {str(path.relative_to(cube)): sha256(path.read_bytes()) for path in files}


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_a_continent_that_is_killed_again_and_again_ends_as_undisturbed(zones, tmp_path, capsys):
    kinds = [Continents(kind, zones, tmp_path, random.Random(f"{SEED} {kind}")) for kind in ("plain", "Icechunk")]

    def all_of(cubes: Continents, before: str) -> list[Round]:
        whole, rounds = cubes.undisturbed(), []
        for starts in ROUNDS[before]:
            rounds.append(cubes.disturbed(before, starts))
            with capsys.disabled():
                print(rounds[-1], flush=True)
        cubes.published = whole
        return rounds

    rounds: list[Round] = []
    for before in ROUNDS:
        if before != "nothing":
            publish_a_shard_anew(zones)
        with ThreadPoolExecutor(2) as pool:
            for some in pool.map(all_of, kinds, [before] * 2):
                rounds += some
    report = told(rounds)
    write_section("Kills of continents", report)
    with capsys.disabled():
        print("\n" + report)
    assert not [one for one in rounds if one.ended != "same"]
    killed = [death for one in rounds for death in one.deaths]
    assert len(killed) >= 20
    assert {death.who for death in killed} == {DRIVER, WARPING, HALVING}
    assert {death.during for death in killed} >= {"planning", "begin", "warping", "shards", "overviews", "publish"}


def told(rounds: Sequence[Round]) -> str:
    """The section of the report."""
    rows = [
        (number, one.store, one.before, death.who, death.during, death.at, one.starts, _how(one.ended))
        for number, one in enumerate(rounds, 1)
        for death in one.deaths
    ]
    good = sum(one.ended == "same" for one in rounds)
    who = Counter(death.who for one in rounds for death in one.deaths)
    each = ", ".join(f"{name} {count}" for name, count in who.items())
    lines = [
        f"{len(rounds)} cubes of EPSG:3035 from two zones, made by `difffusr continent` on Ray. {who.total()} of",
        f"their processes ({each}) died of SIGKILL, at a request",
        "of a store or at a moment; where it was the driver, the same command was started again. Ended with the",
        f"undisturbed cube: {good}. Seed {SEED}.",
        "",
        table(("cube", "store", "before", "killed", "in", "at", "starts", "ended"), rows),
    ]  # fmt: skip
    return "\n".join(lines)


def _how(ended: str) -> str:
    return ended if ended == "same" else f"NOT THE SAME: {ended.splitlines()[0]}"
