"""Drivers that are frozen (SIGSTOP) at a request while another takes over, drivers that all begin at once, drivers in
PID namespaces of their own: what was published stays, and whoever is alive is not taken over."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from cube_commands import Forked, Month, Places, ShardsOfMonth, Work, Workshop, back_by_one
from drill_places import Ground
from drill_report import table, write_section
from dying import Order, Victim
from months import run_month, shown, told
from small_cubes import label
from whole_runs import Job, wait_for

from difffusr.pipeline.scenes.synthetic.world import DemoWorld
from difffusr.pipeline.storage.lease import Lease, holder_of

#: Of leases: so quick that a drill need not wait for half a minute.
QUICK = {"beat_s": 0.1, "term_s": 1.0}

#: What is said where a frozen process holds a folder's lock.
_HOLDS = "a process is stopped in the middle of writing into"

#: Names of notes.
_NUMBERS = itertools.count()


@dataclass
class Scene:
    """Where a case is played.

    Attributes:
        words: what was said by who had to stop, or was refused.
        gone: who was frozen and has gone on.
    """

    ground: Ground
    workshop: Workshop
    folder: Path
    world: Callable[[], DemoWorld]
    words: list[str] = field(default_factory=list)
    gone: list[Forked] = field(default_factory=list)

    def prepared(self, name: str, prepare: Callable[[Places], object]) -> Places:
        """A cube with some months."""
        places = self.ground.at(f"{name}-{next(_NUMBERS)}")
        prepare(places)
        return places

    def begin(self, command: Callable[..., object], places: Places, name: str, **more: object) -> Forked:
        """A command in a process of its own, with a quick lease."""
        return self.workshop.begin(Work, command=command, places=places, name=name, **{**QUICK, **more})

    def done(self, command: Callable[..., object], places: Places, name: str, zombie: Forked | None = None) -> None:
        """A command in a process of its own that ends well; where a frozen one holds a folder's lock, since another of
        its threads was writing, it says so, and ends well once that one goes on."""
        begun = self.begin(command, places, name)
        if begun.ended() == 1 and zombie is not None and _HOLDS in begun.said:
            assert begun.said.count("\n") == 1
            self.thawed(zombie)
            begun = self.begin(command, places, name)
        assert begun.ended() == 0, begun.said

    def frozen(self, command: Callable[..., object], places: Places, name: str, at: int, phase: str) -> Forked:
        """A command that is frozen at a request."""
        note = self.folder / f"frozen-{next(_NUMBERS)}.json"
        begun = self.begin(command, places, name, order=Order(str(note), at, phase, freeze=True))
        assert begun.is_frozen(), f"it makes fewer than {at} requests in {phase}: {begun.said}"
        victim = Victim.noted(note)
        assert victim is not None
        assert (victim.pid, victim.phase) == (begun.process.pid, phase)
        return begun

    def thawed(self, zombie: Forked) -> int:
        """Let a frozen one go on, to its end; it ends by a line that names who has taken over, or was all but done."""
        if zombie in self.gone:
            return 0
        self.gone.append(zombie)
        zombie.thaw()
        code = zombie.ended()
        said = zombie.said
        assert "Traceback" not in said
        assert (code, said.count("\n")) in ((0, 0), (1, 1)), said
        if code:
            assert "has taken over" in said, said
            self.words.append(said)
        return code


def seen(places: Places) -> dict[str, set[int]]:
    return dict(shown(places[0]))


def months(*numbers: int) -> dict[str, set[int]]:
    """What readers see of months whose value is ten more than their number."""
    return {label(number): {10 + number} for number in numbers}


def june_while_july_is_published(scene: Scene, at: int) -> None:
    """Frozen amid the publication of June; another publishes July."""
    places = scene.prepared("june", lambda places: run_month(*places, 5, 15, None))
    zombie = scene.frozen(Month(6, 16), places, "june", at, "publish")
    scene.done(Month(7, 17), places, "july", zombie)
    published = seen(places)
    assert published.items() >= months(5, 7).items()
    scene.thawed(zombie)
    after = seen(places)
    assert after.pop(label(6), {16}) == {16}
    assert after == months(5, 7)
    scene.done(Month(6, 16), places, "june again")
    assert seen(places) == months(5, 6, 7)


def a_rollback_while_july_is_published(scene: Scene, at: int) -> None:
    """Frozen amid a rollback; another publishes July."""

    def prepare(places: Places) -> None:
        for number in (5, 6):
            run_month(*places, number, 10 + number, None)

    places = scene.prepared("rollback", prepare)
    zombie = scene.frozen(back_by_one, places, "rollback", at, "rollback")
    scene.done(Month(7, 17), places, "july", zombie)
    scene.thawed(zombie)
    after = seen(places)
    assert after.pop(label(6), {16}) == {16}
    assert after == months(5, 7)


def a_shard_while_a_replan_is_published(scene: Scene, at: int, published: bool = False) -> None:
    """Frozen inside the writing of a shard; another publishes the same month with other pixels."""
    places = scene.prepared("shard", lambda places: run_month(*places, 6 if published else 5, 15, None))
    zombie = scene.frozen(ShardsOfMonth(6, 16), places, "june", at, "shards")
    scene.done(Month(6, 26), places, "june, planned anew", zombie)
    assert seen(places)[label(6)] == {26}
    history = told(places[1])
    scene.thawed(zombie)
    assert seen(places)[label(6)] == {26}
    assert told(places[1]) == history
    scene.done(Month(6, 26), places, "june, planned anew")
    assert seen(places)[label(6)] == {26}


def six_at_once_on_one_month(scene: Scene) -> None:
    """Whoever is not the first is refused; repeated, nothing is left to do."""
    places = scene.prepared("six", lambda places: run_month(*places, 5, 15, None))
    begun = [scene.begin(Month(6, 16), places, f"june of {i}", term_s=5.0) for i in range(6)]
    codes = [one.ended() for one in begun]
    assert 0 in codes
    for one, code in zip(begun, codes, strict=True):
        if code:
            assert "is working on this store" in one.said
            assert one.said.count("\n") == 1
            scene.words.append(one.said)
    assert seen(places) == months(5, 6)
    scene.done(Month(6, 16), places, "june again")
    assert seen(places) == months(5, 6)
    assert len(told(places[1])) == 2


def six_at_once_on_six_months(scene: Scene) -> None:
    """Each comes again until it is done: all months are there, one publication each."""
    places = scene.prepared("six months", lambda places: run_month(*places, 1, 11, None))
    begun = [
        scene.begin(Month(number, 10 + number), places, label(number), term_s=5.0, patience_s=90)
        for number in range(2, 8)
    ]
    for one in begun:
        assert one.ended() == 0, one.said
    assert seen(places) == months(*range(1, 8))
    assert [record["number"] for record in told(places[1])] == list(range(1, 8))


#: A driver that holds a lease until its input ends, says so, and works on a month then.
_DRIVER = """
import sys
from cube_commands import Work, Month
from difffusr.pipeline.storage.lease import Lease
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.ground.errors import DifffusrError
cube, staging, beat_s, term_s = Storage(sys.argv[1]), Storage(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
try:
    lease = Lease.acquire(staging, "inside", beat_s=beat_s, term_s=term_s)
    print("held", flush=True)
    sys.stdin.readline()
    Month(6, 16)((cube, staging), lease)
    lease.release()
    print("done", flush=True)
except DifffusrError as error:
    print(f"error: {error}", flush=True)
    sys.exit(1)
"""


@contextmanager
def in_a_namespace(places: Places) -> Iterator[subprocess.Popen[str]]:
    """A driver that is process 1 of a PID namespace of its own, on the same host."""
    helpers = str(Path(__file__).resolve().parent.parent / "helpers")
    there = {**os.environ, "PYTHONPATH": os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])}
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", _DRIVER]
    words += [places[0].url, places[1].url, str(QUICK["beat_s"]), str(QUICK["term_s"])]
    with subprocess.Popen(words, env=there, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def said_by(driver: subprocess.Popen[str]) -> str:
    assert driver.stdout is not None
    return driver.stdout.readline().strip()


def go_on(driver: subprocess.Popen[str]) -> None:
    assert driver.stdin is not None
    driver.stdin.write("\n")
    driver.stdin.flush()


def a_living_driver_in_another_namespace(scene: Scene) -> None:
    """It is not taken over, although no process of its number is here."""
    places = scene.prepared("living", lambda places: run_month(*places, 5, 15, None))
    with in_a_namespace(places) as driver:
        assert said_by(driver) == "held"
        holder = holder_of(places[1])
        assert holder is not None
        assert holder.pid == 1
        other = scene.begin(Month(7, 17), places, "july")
        assert other.ended() == 1
        assert "is working on this store" in other.said
        scene.words.append(other.said)
        go_on(driver)
        assert said_by(driver) == "done"
    assert seen(places) == months(5, 6)
    scene.done(Month(7, 17), places, "july")
    assert seen(places) == months(5, 6, 7)


def a_dead_driver_in_another_namespace(scene: Scene) -> None:
    """It is taken over after a term."""
    places = scene.prepared("dead", lambda places: run_month(*places, 5, 15, None))
    with in_a_namespace(places) as driver:
        assert said_by(driver) == "held"
    assert driver.returncode == -signal.SIGKILL
    begun = time.monotonic()
    scene.done(Month(7, 17), places, "july")
    assert time.monotonic() - begun > QUICK["term_s"]
    assert seen(places) == months(5, 7)


def a_frozen_driver_in_another_namespace(scene: Scene) -> None:
    """It is taken over after a term, and stops when it goes on."""
    places = scene.prepared("frozen", lambda places: run_month(*places, 5, 15, None))
    with in_a_namespace(places) as driver:
        assert said_by(driver) == "held"
        (inside,) = children(driver.pid)
        os.kill(inside, signal.SIGSTOP)
        scene.done(Month(7, 17), places, "july")
        os.kill(inside, signal.SIGCONT)
        go_on(driver)
        said = said_by(driver)
    assert "july" in said
    assert "has taken over" in said
    scene.words.append(said)
    assert seen(places) == months(5, 7)


def who_is_in_another_namespace_and_finds_one_here(scene: Scene) -> None:
    """A driver here, alive, is not taken over from within."""
    places = scene.prepared("here", lambda places: run_month(*places, 5, 15, None))
    lease = Lease.acquire(places[1], "here", **QUICK)
    try:
        with in_a_namespace(places) as driver:
            said = said_by(driver)
        assert "is working on this store" in said
        scene.words.append(said)
        run_month(*places, 7, 17, lease)
    finally:
        lease.release()
    assert seen(places) == months(5, 7)


def two_namespaces(scene: Scene) -> None:
    """Both drivers are process 1: the first goes on, the second is refused; once the first is killed, one more is
    not."""
    places = scene.prepared("two", lambda places: run_month(*places, 5, 15, None))
    with in_a_namespace(places) as first:
        assert said_by(first) == "held"
        with in_a_namespace(places) as second:
            said = said_by(second)
        assert "is working on this store" in said
        scene.words.append(said)
    with in_a_namespace(places) as third:
        assert said_by(third) == "held"
        go_on(third)
        assert said_by(third) == "done"
    assert seen(places) == months(5, 6)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def a_whole_run_while_a_replan_is_published(scene: Scene) -> None:
    """All processes of `difffusr run`, those of Ray too, are frozen when one is about to put a shard's object; another
    `difffusr run` publishes the period with other pixels."""
    folder, note = scene.folder / f"run-{next(_NUMBERS)}", scene.folder / f"frozen-{next(_NUMBERS)}.json"
    url = "icechunk+./cube" if scene.ground.is_icechunk else "cube.zarr"
    job = Job.write(scene.world(), folder, store={"url": url})
    other = Job(shutil.copyfile(job.config, folder / "other.yaml"))
    other.changed(model={"sampler_steps": 4})
    zombie = job.begin(order=Order(str(note), 2, "shards", "set or exchange", freeze=True, worker=True))
    wait_for(lambda: Victim.noted(note) is not None)
    victim, frozen = Victim.noted(note), zombie.everybody()
    assert victim is not None
    assert victim.called.startswith("ray::")
    assert victim.pid in [one.pid for one in frozen]
    for one in frozen:
        one.suspend()
    try:
        ended = other.call()
        assert ended.code == 0, ended.said
        assert "published: publication 1" in ended.said
        published = other.pixels(), other.told()
    finally:
        for one in frozen:
            if one.is_running():
                one.resume()
    said = zombie.ended()
    assert said.code != 0, said.said
    assert "Traceback" not in said.said
    scene.words += [line for line in said.said.splitlines() if "has taken over" in line and "error: " in line]
    wait_for(lambda: not victim.is_there(), 60)
    assert (other.pixels(), other.told()) == published
    again = other.call()
    assert again.code == 0, again.said
    assert (other.pixels(), other.told()) == published


Case = Callable[[Scene], None]

#: What is played, how it is called, and on which kinds of stores.
CASES: list[tuple[str, str, Case]] = [
    *(
        ("a driver frozen amid publication", kind, partial(june_while_july_is_published, at=at))
        for kind, some in (("plain", (1, 20, 50, 70, 84)), ("Icechunk", (1, 4, 8)), ("plain on S3", (15, 60)))
        for at in some
    ),
    *(
        ("a driver frozen amid rollback", kind, partial(a_rollback_while_july_is_published, at=at))
        for kind, some in (("plain", (10, 45)), ("Icechunk", (4,)))
        for at in some
    ),
    *(
        (
            "frozen in the PUT of a shard, replan published",
            kind,
            partial(a_shard_while_a_replan_is_published, at=at, published=published),
        )
        for kind, some in (("plain", (1, 4, 7)), ("Icechunk", (2, 5)), ("plain on S3", (4,)))
        for at in some
        for published in (False, True)
    ),
    *(
        ("a whole run frozen in the PUT of a shard, replan published", kind, a_whole_run_while_a_replan_is_published)
        for kind in ("plain", "Icechunk")
    ),
    *(
        ("six drivers at once", kind, case)
        for kind in ("plain", "Icechunk", "plain on S3")
        for case in (six_at_once_on_one_month, six_at_once_on_six_months)
    ),
    *(
        ("PID namespaces", kind, case)
        for kind, some in (
            (
                "plain",
                (
                    a_living_driver_in_another_namespace,
                    a_dead_driver_in_another_namespace,
                    a_frozen_driver_in_another_namespace,
                    who_is_in_another_namespace_and_finds_one_here,
                    two_namespaces,
                ),
            ),
            ("Icechunk", (a_living_driver_in_another_namespace, a_frozen_driver_in_another_namespace)),
        )
        for case in some
    ),
]


@pytest.fixture
def scene(ground, workshop, tmp_path, request) -> Callable[[str], Scene]:
    return lambda kind: Scene(ground(kind), workshop, tmp_path, lambda: request.getfixturevalue("smallest_world"))


def can_unshare() -> bool:
    try:
        made = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return made.returncode == 0


def test_a_driver_that_is_frozen_amid_its_publication_takes_nothing_away(scene):
    here = scene("plain")
    june_while_july_is_published(here, at=50)
    assert "run july" in here.words[0]


@pytest.mark.slow
def test_a_living_driver_in_another_namespace_is_not_taken_over(scene):
    if not can_unshare():
        pytest.skip("no PID namespace can be made here (that takes root)")
    a_living_driver_in_another_namespace(scene("plain"))


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_zombies_and_races_take_nothing_away(scene, capsys):
    counts: Counter[tuple[str, str, str]] = Counter()
    wrong = []
    words: Counter[bool] = Counter()
    for name, kind, case in CASES:
        if name == "PID namespaces" and not can_unshare():
            continue
        here = scene(kind)
        try:
            case(here)
        except AssertionError as error:
            wrong.append((name, kind, case, str(error).splitlines()[0]))
        counts[name, kind, "all"] += 1
        words.update("is working on this store" in said for said in here.words)
        with capsys.disabled():
            print(f"{name}, {kind}: {'NO' if wrong and wrong[-1][2] is case else 'as it should be'}", flush=True)
    kinds = list(dict.fromkeys(kind for _, kind, _ in CASES))
    names = list(dict.fromkeys(name for name, _, _ in CASES))
    rows = [
        (name, *(counts[name, kind, "all"] for kind in kinds), sum(counts[name, kind, "all"] for kind in kinds))
        for name in names
    ]
    lines = [
        f"{counts.total()} cases, each with real processes; {len(wrong)} of them ended otherwise than they should.",
        f"{words[False]} drivers stopped with one line, which says who has taken",
        f"over; {words[True]} were refused with one line, which says who is at work.",
        "",
        table(("case", *kinds, "all"), rows),
        *(f"\n- NOT AS IT SHOULD BE: {one}" for one in wrong),
    ]
    write_section("Zombies and races", "\n".join(lines))
    assert not wrong
    assert counts.total() >= 20
