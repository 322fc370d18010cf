"""Runs whose actors are taken away: each has a logical GPU, on which a model sleeps as long as a GPU would compute, and
a diary of what it was given."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import psutil
import yaml
from machines import unsigned
from null_model import NullResolver
from whole_runs import sha256

from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.device import Made, OnCores
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.storage.objects import Storage

HERE = Path(__file__).resolve().parent

DRIVER = """
import json, logging, sys
import ray
sys.path[:0] = [{here!r}, {bench!r}]
import null_model, preempted_runs
from ray import cloudpickle
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.watch.log import json_lines
for module in (null_model, preempted_runs):
    cloudpickle.register_pickle_by_value(module)
logging.getLogger("difffusr").setLevel(logging.INFO)
logging.getLogger("difffusr").addHandler(json_lines({log!r}, "drill"))
class Silent:
    def start(self, *_): pass
    def advance(self, _): pass
Resolver = type("Resolver", (preempted_runs.SleepingGpu,), dict(folder={folder!r}, chip_s={chip_s}))
if {gpus} is not None:
    ray.init("local", num_cpus=8, num_gpus={gpus}, include_dashboard=False, logging_level="error", log_to_driver=False,
             object_store_memory=2**29)
result = execute(load_config({path!r}), Silent(), Resolver)
print(json.dumps(dict(computed=result.computed, failed=len(result.failed), state=result.state)))
"""


class _Lane(OnCores):
    """A device that computes one batch after the other, beside whatever its host does."""

    beside = True

    def __init__(self, chip_s: float, diary: Path) -> None:
        self._chip_s, self._diary, self._free = chip_s, diary.open("a", buffering=1), 0.0
        self.names: list[str] = []
        threading.Thread(target=self._beat, daemon=True).start()

    def sent(self, parts: Sequence[Made]) -> Any:
        """See `Lane`."""
        names, self.names = self.names, []  # none where all of a batch is staged
        begun = max(time.time(), self._free)
        self._free = ends = begun + self._chip_s * len(names)
        self._diary.write(json.dumps([begun, ends, names]) + "\n")
        return _UnderWay(ends, super().sent(parts).wait())

    def _beat(self) -> None:
        """The last line tells when the process has died."""
        while True:
            self._diary.write(f"[{time.time()}]\n")
            time.sleep(0.1)


class _UnderWay(NamedTuple):
    ends: float
    made: list[Any]

    def wait(self) -> list[Any]:
        """See `UnderWay`."""
        time.sleep(max(0.0, self.ends - time.time()))
        return self.made


class SleepingGpu(NullResolver):
    """An actor whose results are those of the null model, after a while."""

    chip_s: ClassVar[float] = 0.0
    folder: ClassVar[str] = ""

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        super().__init__(config, board, staging)
        self.lane = _Lane(self.chip_s, Path(self.folder) / f"{os.getpid()}-{time.time()}.jsonl")
        self.listen(config)

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        """See `SuperResolver`."""
        self.lane.names = [str(batch["name"][i]) for i in chosen]
        return {name: np.ascontiguousarray(made) for name, made in super().super_resolve(batch, chosen).items()}


@dataclass
class Diaries:
    """What actors computed: how often each chip was begun on a device, and how many actors there were."""

    begun: Counter[str] = field(default_factory=Counter)
    actors: int = 0

    @classmethod
    def read(cls, folder: Path) -> Diaries:
        """All that the actors of a run have left."""
        found = cls()
        for file in folder.glob("*.jsonl"):
            lines = []
            for line in file.read_text().splitlines():
                with suppress(ValueError):  # cut by a kill
                    lines.append(json.loads(line))
            last = lines[-1][0] if lines else 0.0
            found.actors += 1
            for line in lines:
                if len(line) == 3 and line[0] <= last + 0.1:  # what lay behind another batch then was never begun
                    found.begun.update(line[2])
        return found

    @property
    def lost(self) -> int:
        """Computations that were broken off or done once more."""
        return self.begun.total() - len(self.begun)


class Actors:
    """The actors of a run, found by their diaries, and how they are taken away.

    Attributes:
        taken: how many were.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._had = folder, set[int]()
        self.taken = 0

    def at_work(self) -> bool:
        """Whether a chip has been begun."""
        return bool(Diaries.read(self._folder).begun)

    def chosen(self, chance: random.Random, count: int) -> list[int]:
        """So many that live and have had no notice."""
        pids = sorted({int(file.name.split("-")[0]) for file in self._folder.glob("*.jsonl")} - self._had)
        alive = [pid for pid in pids if is_called(pid, "ray::")]
        found = chance.sample(alive, min(count, len(alive)))
        self._had.update(found)
        return found

    def notify(self, pid: int) -> None:
        """An actor hears that it is about to be taken away."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    def take(self, pid: int) -> None:
        """An actor is killed, if it has not ended."""
        self.taken += 1
        if is_called(pid, "ray::"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_called(pid: int, words: str) -> bool:
    """Whether a process is there and has these words in its command line."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and words in " ".join(process.cmdline())
    except psutil.Error:
        return False


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        content: sha256 of every object of the cube.
        lines: of its log.
    """

    said: dict[str, Any]
    seconds: float
    content: dict[str, str]
    diaries: Diaries
    lines: list[dict[str, Any]]

    def total(self, event: str, fact: str) -> float:
        """Sum of a fact of all lines of a kind."""
        return sum(line[fact] for line in self.lines if line.get("event") == event)


def configured(path: Path, folder: Path, **compute: Any) -> Path:
    """A configuration as that one, with its store in another folder."""
    config = yaml.safe_load(path.read_text())
    config["source"]["static_catalog"] = str(path.parent / "catalog.json")
    config["store"]["url"] = str(folder / "cube.zarr")
    config["compute"] = {**config["compute"], **compute}
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def carried_out(
    path: Path, gpus: int | None, chip_s: float, meanwhile: Callable[[Callable[[], bool]], object]
) -> Outcome:
    """A job in a process of its own.

    Args:
        gpus: that its own Ray believes there are; None for the cluster that it names.
        chip_s: seconds of the device a chip.
        meanwhile: is called with whether the process runs, and should return when it does not.
    """
    diaries, log = path.parent / "diaries", path.parent / "log.jsonl"
    diaries.mkdir()
    code = DRIVER.format(
        here=str(HERE), bench=str(HERE.parent / "bench"), log=str(log), folder=str(diaries), chip_s=chip_s,
        path=str(path), gpus=gpus,
    )  # fmt: skip
    begun = time.monotonic()
    with (path.parent / "said.txt").open("w") as said:
        environment = unsigned() if gpus is None else None
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=said, stderr=said, cwd=path.parent
        )
        try:
            meanwhile(lambda: process.poll() is None)
            process.wait(1800)
        finally:
            if process.poll() is None:
                process.kill()
    told = (path.parent / "said.txt").read_text()
    assert process.returncode == 0, told[-3000:]
    cube = path.parent / "cube.zarr"
    files = sorted(file for file in cube.rglob("*") if file.is_file())
    return Outcome(
        next(json.loads(line) for line in reversed(told.splitlines()) if line.startswith("{")),  # Ray may say more
        time.monotonic() - begun,
        {str(file.relative_to(cube)): sha256(file.read_bytes()) for file in files},
        Diaries.read(diaries),
        [json.loads(line) for line in log.read_text().splitlines()],
    )
