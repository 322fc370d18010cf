"""An estimate made before a run against the run: wall clock, bytes and objects, on generated worlds and real scenes.

The wall clock says something only on a machine that has nothing else to do. What others took of the cores meanwhile is
therefore measured and taken out of it: what is left is the time that the run computed, or that nobody did.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from beside import SHARED

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.run.cost.calibration import load_calibration
from difffusr.pipeline.run.cost.estimates import cluster_of, estimate
from difffusr.pipeline.run.cost.figures import Estimate
from difffusr.pipeline.run.cost.measure_planning import measure_planning
from difffusr.pipeline.run.cost.planning import planning_seconds, planning_work
from difffusr.pipeline.run.cost.sample import Sample
from difffusr.pipeline.scenes.synthetic import write_two_orbits
from difffusr.pipeline.scenes.synthetic.world import write_demo_world

ARCHIVE = SHARED / "data" / "archive" / "catalog.json"
COMMAND = Path(sys.executable).with_name("difffusr")

#: What an estimate may be off by.
TOLERANCE = 0.25

#: How many times as long so small a part as planning a few scenes may take, or be expected to.
FACTOR = 2


@pytest.mark.bench
@pytest.mark.parametrize("size_m", [(600, 900), (2880, 3660), (4800, 6000)])
def test_a_generated_world_takes_what_was_estimated(size_m, tmp_path, capsys):
    world = write_demo_world(tmp_path / "world", size_m=size_m)
    source = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
    }
    compare(f"{size_m[0]} × {size_m[1]} m", source, tmp_path, capsys)


@pytest.mark.bench
def test_real_scenes_take_what_was_estimated(tmp_path, capsys):
    if not ARCHIVE.exists():
        pytest.skip(f"no real scenes: {ARCHIVE.parent} is not there")
    source = {
        "area": {"tiles": ["48QUE", "48QUD"]},
        "period": {"start": "2020-02-01", "end": "2020-02-29"},
        "source": {"static_catalog": str(ARCHIVE)},
    }
    compare("48Q", source, tmp_path, capsys)


@pytest.mark.bench
def test_balance_adds_to_planning_what_was_estimated(tmp_path, capsys):
    world = write_two_orbits(tmp_path / "world", size_m=(6000, 7200))
    source = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
    }
    planning, known, took = {}, {}, {}
    for balance in ("none", "nbar", "full"):
        path = tmp_path / f"{balance}.yaml"
        store = {"url": f"{balance}.zarr"}
        path.write_text(yaml.safe_dump({**source, "store": store, "scenes": {"balance": balance}}))
        config = load_config(path)
        plan = decide(config)  # once before it counts: libraries are loaded
        known[balance] = measure_planning(config, Sample.of(config, plan))
        work = planning_work(plan, config, known[balance])
        planning[balance] = planning_seconds(work, config, known[balance], psutil.cpu_count() or 1)
        took[balance] = min(_seconds_of(lambda config=config: decide(config)) for _ in range(3))
    for balance in ("nbar", "full"):
        expected, actual = planning[balance] - planning["none"], took[balance] - took["none"]
        with capsys.disabled():
            print(f"\n{balance} adds {expected:.2f} s, took {actual:.2f} s: {expected / actual:.2f}")
        assert 1 / FACTOR <= expected / actual <= FACTOR


def _seconds_of(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def compare(name: str, source: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Calibrate, estimate, run; print what was expected beside what came, and hold one against the other."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**source, "store": {"url": "cube.zarr", "keep_chips": True}}))
    begun = time.monotonic()
    difffusr("calibrate", path, "--output", folder / "calibration.json")
    calibrated = time.monotonic() - begun
    made = before(path, folder / "calibration.json")
    others = Others()
    report = run(path)
    taken = others.stop()
    cube, staging = folder / "cube.zarr", folder / "cube.staging"
    rows = {
        "wall clock, s": (made.seconds.total - made.seconds.plan, report["wall"] - taken),
        "bytes staged": (made.bytes_staged, stored(next(staging.glob("runs/*/chips")))[0]),
        "bytes of the cube": (made.bytes_cube, stored(cube)[0]),
        "objects": (made.objects, stored(cube)[1] + stored(staging)[1]),
    }
    with capsys.disabled():
        print(f"\n{name}: {made.chips} chips, {made.shards} shards; calibrated in {calibrated:.0f} s")
        for row, (expected, actual) in rows.items():
            print(f"  {row:18} {expected:14,.0f} {actual:14,.0f}   {expected / actual:.2f}")
        print(f"  {made.seconds}\n  run: {report}, of which others took {taken:.1f} s")
    for row, (expected, actual) in rows.items():
        assert expected == pytest.approx(actual, rel=TOLERANCE), row


def difffusr(*words: str | Path) -> None:
    subprocess.run([COMMAND, *words], check=True, stdout=subprocess.DEVNULL)


def before(path: Path, calibration: Path) -> Estimate:
    config = load_config(path)
    return estimate(decide(config), config, load_calibration(str(calibration)), cluster_of(config))


def run(path: Path) -> dict[str, float]:
    """Seconds of a run by stage, and together without planning and without Python's own start."""
    code = (
        "import sys, time\n"
        "from difffusr.pipeline.config.loading import load_config\n"
        "from difffusr.pipeline.run.execution import execute\n"
        "class Silent:\n"
        "    def start(self, *_): pass\n"
        "    def advance(self, *_): pass\n"
        "begun = time.monotonic()\n"
        "seconds = execute(load_config(sys.argv[1]), Silent()).seconds\n"
        "seconds['wall'] = time.monotonic() - begun - seconds['plan']\n"
        "print(seconds)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, stdout=subprocess.PIPE, text=True)
    seconds: dict[str, float] = yaml.safe_load(done.stdout.splitlines()[-1])
    return seconds


def stored(folder: Path) -> tuple[int, int]:
    """Bytes and number of the files below a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(sizes), len(sizes)


class Others:
    """What processes other than this one and its children compute, as seconds of the whole machine."""

    def __init__(self) -> None:
        self._own: dict[int, float] = {}
        self._look()
        self._before = _busy() - sum(self._own.values())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.3):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._own[process.pid] = times.user + times.system

    def stop(self) -> float:
        self._done.set()
        self._thread.join()
        self._look()
        return (_busy() - sum(self._own.values()) - self._before) / (psutil.cpu_count() or 1)


def _busy() -> float:
    """Seconds that all cores together have computed since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
