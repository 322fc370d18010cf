"""How long a run takes until its first chip is staged, and what its processes do until then.

`python tests/bench/first_chip.py [--gpu] [--turns N] [--old FOLDER] [--json FILE]`; FOLDER is an older checkout, whose
code is run with this environment, in turns with this one's. The demonstration's world is made first and not counted.
With `--gpu` Ray is told of a GPU that is not there: the run asks for it as on one, and its actor computes on a core,
chip by chip.
Then an actor is killed, as a spot machine takes one away, and the time is measured until the one in its place is ready.

Shown are the medians of all turns, and the processes of the median turn: when each began, when it was ready for work,
and the seconds of core it had used when the first chip was staged. "networks" are the seconds that the models had that
chip: a GPU takes some hundredths of one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from difffusr.pipeline.scenes.synthetic import DemoWorld, write_demo_world

#: Seconds between two looks at the processes.
LOOK_S = 0.1

#: What Ray's own processes are, by a part of their command line.
_OF_RAY = {
    "gcs_server": "Ray: control store", "raylet/raylet": "Ray: raylet", "log_monitor.py": "Ray: log monitor",
    "monitor.py": "Ray: autoscaler's monitor", "dashboard/dashboard.py": "Ray: head's agent",
    "dashboard/agent.py": "Ray: node's agent", "DashboardAgent": "Ray: node's agent",
    "runtime_env": "Ray: environments", "RuntimeEnvAgent": "Ray: environments",
}  # fmt: skip

#: What workers are, by a part of the title that Ray gives them.
_WORKERS = {
    "MapBatches(PinnedResolver)": "actor", "MapBatches(SuperResolve)": "actor", "read_chips": "reader",
    "stage_rows": "stager", "Board": "board", "StatsActor": "Ray Data: statistics",
    "AutoscalingCoordinator": "Ray Data: autoscaling", "LocationTracker": "Ray Data: places",
}  # fmt: skip


@dataclass
class Seen:
    """A process; times are seconds after the command.

    Attributes:
        name: what it is.
        born: when it began.
        ready: when it was ready for work; None where that is not known.
        core_s: seconds of core so far, and `core_ready_s` until it was ready.
        title: the last that it had.
    """

    name: str
    born: float
    ready: float | None = None
    core_s: float = 0.0
    core_ready_s: float = 0.0
    title: str = ""

    def look(self, title: str, core_s: float, now: float) -> None:
        """It has this title and these seconds of core now."""
        self.core_s = core_s
        if self.title == title:
            return
        self.title, name = title, _named(title)
        if name is not None and self.name == WORKER:
            self.name = name
        if name is not None and self.ready is None and ".__init__" not in title:
            self.ready, self.core_ready_s = now, core_s


class Turn(NamedTuple):
    """One run: seconds to the first staged chip, those of the models in it, seconds until a killed actor is replaced,
    seconds of core of all processes until the first chip, and the processes."""

    first_chip_s: float
    networks_s: float
    replaced_s: float
    core_s: float
    processes: list[Seen]


#: A process that has not said yet what it is.
WORKER = "worker"


def _named(title: str) -> str | None:
    for part, name in (*_OF_RAY.items(), *_WORKERS.items()):
        if part in title:
            return name
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gpu", action="store_true", help="tell Ray of a GPU that is not there")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--old", type=Path, metavar="FOLDER", help="an older checkout to measure beside this one")
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args(argv)
    here = Path(__file__).resolve().parents[2]
    checkouts = {**({"before": args.old.resolve()} if args.old else {}), "now": here}
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder) / "world", gpu=args.gpu)
        turns: dict[str, list[Turn]] = {name: [] for name in checkouts}
        for _ in range(args.turns):
            for name, checkout in checkouts.items():
                turns[name].append(measured(config, checkout, gpu=args.gpu))
    shown = {name: summary(found) for name, found in turns.items()}
    for name, figures in shown.items():
        Console().print(table_of(name, figures))
    if args.json is not None:
        from machine import machine  # imports torch: after all else

        args.json.write_text(json.dumps({"machine": machine(), "gpu_emulated": args.gpu, **shown}, indent=1) + "\n")


def write_config(folder: Path, *, gpu: bool) -> Path:
    """The demonstration's world and its configuration."""
    world: DemoWorld = write_demo_world(folder, 0)
    content: dict[str, Any] = {
        "name": "demo",
        "area": {"bbox": [round(float(edge), 6) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "store": {"url": "cube.zarr"},
        # A batch of one chip: what would take a GPU some hundredths of a second each takes a core seconds.
        "compute": {"gpus_per_actor": int(gpu), **({"batch": 1} if gpu else {})},
    }
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def measured(config: Path, checkout: Path, *, gpu: bool) -> Turn:
    """Run a configuration with a checkout's code until an actor that was killed after the first chip is replaced."""
    for old in config.parent.glob("cube.*"):
        shutil.rmtree(old)
    with packages_of(checkout) as environment:
        if gpu:
            environment["RAY_OVERRIDE_RESOURCES"] = json.dumps({"GPU": 1})
        call = "import sys; from difffusr.pipeline.commands.cli import main; sys.argv[0] = 'difffusr'; main()"
        begun = time.time()
        run = subprocess.Popen(
            [sys.executable, "-c", call, "run", str(config)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            seen = watch(run, begun, lambda _: bool(list(config.parent.glob("cube.staging/runs/*/chips/*/*"))))
            first, at_first = time.time() - begun, {pid: replace(one) for pid, one in seen.items()}
            actor = next(pid for pid, one in at_first.items() if _is_actor(one))
            killed = time.time()
            os.kill(actor, signal.SIGKILL)
            watch(run, begun, lambda now: any(pid not in at_first and _is_actor(one) for pid, one in now.items()))
            replaced = time.time() - killed
        finally:
            run.terminate()
            with suppress(subprocess.TimeoutExpired):
                run.communicate(timeout=60)
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    processes = sorted(at_first.values(), key=lambda one: one.born)
    networks = at_first[actor].core_s - at_first[actor].core_ready_s
    return Turn(first, networks, replaced, sum(one.core_s for one in processes), processes)


def watch(run: subprocess.Popen[str], begun: float, over: Callable[[dict[int, Seen]], bool]) -> dict[int, Seen]:
    """Look at a run's processes until something is so; returns them by number.

    Raises:
        RuntimeError: the run has ended before.
    """
    driver, seen = psutil.Process(run.pid), {run.pid: Seen("driver", 0.0)}
    while True:
        for process in (driver, *driver.children(recursive=True)):
            with suppress(psutil.Error):  # it has just ended
                one = seen.setdefault(process.pid, Seen(WORKER, process.create_time() - begun))
                core_s = sum(process.cpu_times()[:2])
                one.look(" ".join(process.cmdline()), core_s, time.time() - begun)
        if over(seen):
            return seen
        if run.poll() is not None:
            raise RuntimeError(f"the run has ended: {(run.stderr.read() if run.stderr else '')[-500:]}")
        time.sleep(LOOK_S)


def _is_actor(one: Seen) -> bool:
    """Whether it is an actor that has loaded its models."""
    return one.name == "actor" and one.ready is not None


@contextmanager
def packages_of(checkout: Path) -> Iterator[dict[str, str]]:
    """An environment in which `difffusr` is a checkout's code."""
    with tempfile.TemporaryDirectory() as names:
        package = Path(names) / "difffusr"
        package.mkdir()
        for part in ("pipeline", "kernels"):
            (package / part).symlink_to(checkout / part)
        yield {**os.environ, "PYTHONPATH": names}


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    """Medians of all turns, and the processes of the median one."""
    middle = sorted(turns, key=lambda turn: turn.first_chip_s)[len(turns) // 2]
    return {
        **{name: round(statistics.median(getattr(turn, name) for turn in turns), 2) for name in Turn._fields[:-1]},
        "turns_s": [round(turn.first_chip_s, 2) for turn in turns],
        "processes": [
            {
                "name": one.name,
                "born_s": round(one.born, 2),
                "ready_s": None if one.ready is None else round(one.ready, 2),
                "core_s": round(one.core_s, 2),
            }
            for one in middle.processes
        ],
    }


def table_of(name: str, figures: Mapping[str, Any]) -> Table:
    """One line a process, and the medians as the title."""
    title = (
        f"{name}: first chip after {figures['first_chip_s']:.1f} s, of these {figures['networks_s']:.1f} in the "
        f"networks;\na killed actor is replaced in {figures['replaced_s']:.1f} s"
    )
    table = Table(title=title, title_justify="left", box=None, min_width=79)
    for column in ("", "began, s", "ready, s", "core, s"):
        table.add_column(column, justify="right" if column else "left")
    for one in figures["processes"]:
        ready = "" if one["ready_s"] is None else f"{one['ready_s']:.1f}"
        table.add_row(one["name"], f"{one['born_s']:.1f}", ready, f"{one['core_s']:.1f}")
    table.add_row("all", "", "", f"{figures['core_s']:.1f}")
    return table


if __name__ == "__main__":
    main()
