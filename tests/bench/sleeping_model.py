"""A model that takes a GPU's time and none of a core's, and a diary of what its actor is at meanwhile.

A device computes beside the cores, one batch after the other, and writes what it made straight into pinned memory. A
device that only reckons when it would be done, and arrays that were made before, cost the cores as little as that does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from textured_world import super_resolved

from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.device import Made, OnCores, UnderWay
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.storage.objects import Storage

HERE = Path(__file__).resolve().parent

#: What a call of the actor is at, in the order in which a chip meets it.
MODEL = "model"
STATES = (
    "waiting for input", "input to arrays", "waiting for the model", MODEL,
    "after the model", "building blocks", "storing",
)  # fmt: skip


#: Reads, resolves and stages chips of a plan; no shards are written. Prints what a chip took.
_DRIVER = """
import json, os, sys
from contextlib import suppress
import numpy as np, psutil, ray
from ray import cloudpickle
sys.path.insert(0, {here!r})
import sleeping_model, textured_world
from difffusr.pipeline.engine.board import start_board
from difffusr.pipeline.engine.memory import KEEP_FREED
from difffusr.pipeline.chips.stream import chip_dataset, in_squares
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.plan.decision import plan_run
for module in (sleeping_model, textured_world):
    cloudpickle.register_pickle_by_value(module)
config = load_config({path!r})
plan = plan_run(config)
os.environ.update(KEEP_FREED)  # as a run's workers have it
ray.init(
    address="local", num_cpus={cpus}, num_gpus={gpus}, include_dashboard=False, logging_level="error",
    log_to_driver=False,
)
Resolver = type("Resolver", (sleeping_model.SleepingResolver,), dict(folder={folder!r}, chip_s={chip_s}))
positions = in_squares(plan, np.ones(len(plan.chips), bool))[:{chips}]
dataset = chip_dataset(config, plan, positions, start_board(), Resolver)
def core_seconds(process):
    with suppress(psutil.Error):  # it has just ended
        return sum(process.cpu_times()[:4])  # with those of its children that have ended
    return 0.0
told, me = [], psutil.Process()
for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
    assert not any(batch["error"]), batch["error"]
    told.append([len(batch["error"]), float(batch["read_s"].sum()), float(batch["stage_s"].sum())])
core_s = sum(core_seconds(process) for process in (me, *me.children(recursive=True)))
chips, read_s, stage_s = np.sum(told, axis=0)
print(json.dumps(dict(chips=int(chips), core_s=core_s, read_s=read_s / chips, stage_s=stage_s / chips)))
"""


def run(
    path: Path, folder: Path, *, chips: int, gpus: int, cpus: int, chip_s: float
) -> tuple[dict[str, Any], list[Days]]:
    """Chips of a job through the engine in a process of its own: what it told, and each actor's diary.

    `core_s` of what it told are the seconds of core of all its processes, from their start.

    Args:
        chips: at most so many of the plan's.
        gpus, cpus: that Ray believes there are.
    """
    folder.mkdir()
    code = _DRIVER.format(
        here=str(HERE), path=str(path), folder=str(folder), chips=chips, gpus=gpus, cpus=cpus, chip_s=chip_s
    )
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=path.parent)
    told: dict[str, Any] = json.loads(next(line for line in reversed(said.stdout.splitlines()) if line.startswith("{")))
    return told, [Days.read(file) for file in sorted(folder.glob("*.jsonl"))]


class SleepingLane(OnCores):
    """A device that takes its time: a batch begins when the one before has ended, whoever waits for what meanwhile."""

    beside = True

    def __init__(self, chip_s: float, diary: Diary) -> None:
        self._chip_s, self._diary = chip_s, diary
        self._free = 0.0
        self.batch: tuple[int, int, int] = (0, 0, 0)

    def compute(self, caller: int, size: int, chips: int) -> None:
        """Note what the next `sent` is: the call's thread, the chips of a full batch, and those that there are."""
        self.batch = (caller, size, chips)

    def sent(self, parts: Sequence[Made]) -> UnderWay:
        """See `Lane`."""
        caller, size, chips = self.batch
        begun = max(time.time(), self._free)
        self._free = begun + self._chip_s * size
        return Sleeping(begun, self._free, super().sent(parts).wait(), partial(self._diary.slept, caller, chips))


class Sleeping(NamedTuple):
    """A batch that is done at a certain time."""

    begun: float
    ends: float
    made: list[Any]
    note: Callable[[float, float], None]

    def wait(self) -> list[Any]:
        """See `UnderWay`."""
        time.sleep(max(0.0, self.ends - time.time()))
        self.note(self.begun, self.ends)
        return self.made


class SleepingResolver(PinnedResolver):
    """The run's actor but for its networks."""

    chip_s: ClassVar[float] = 0.08
    folder: ClassVar[str] = ""

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        self.batch, self.samples = config.compute.batch, 0
        self.prepare(board, staging)
        self.callers: dict[int, int] = {}
        self.made = np.stack([super_resolved(seed, config.grid.chip_px) for seed in range(max(self.batch, 2))])
        self.diary = Diary(Path(self.folder) / f"{os.getpid()}.jsonl")
        self.lane = SleepingLane(self.chip_s, self.diary)
        keep_diary(self.diary)

    def __call__(self, batch: Batch) -> Batch:
        """See `PinnedResolver`."""
        self.callers[int(batch["position"][0])] = threading.get_native_id()
        self.diary.note("waiting for the model")
        out = super().__call__(batch)
        self.diary.note("building blocks")
        return out

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        """See `SuperResolver`."""
        caller = self.callers.pop(int(batch["position"][0]))
        self.lane.compute(caller, self.batch, len(chosen))  # a batch that is not full takes as long
        return {"dn": self.made[: len(chosen)]}


class Diary:
    """Lines of [thread, state, when it began, chips that have just come through the model]; one file an actor."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = path.open("a", buffering=1), threading.Lock()

    def note(self, state: str, thread: int | None = None, chips: int = 0, when: float | None = None) -> None:
        """What a thread is at from a time on; by default the calling one, from now on."""
        line = [thread or threading.get_native_id(), state, time.time() if when is None else when, chips]
        with self._lock:
            self._file.write(json.dumps(line) + "\n")

    def slept(self, thread: int, chips: int, begun: float, ended: float) -> None:
        """A thread's chips were with the model."""
        self.note(MODEL, thread, when=begun)
        self.note("after the model", thread, chips, ended)


def keep_diary(diary: Diary) -> None:
    """Have Ray Data's worker tell what its threads are at around the calls: it has no hooks for that."""
    from ray.data._internal.execution.operators import actor_pool_map_operator as pool
    from ray.data._internal.execution.operators.map_transformer import BatchMapTransformFn

    run_task, batches_of = pool._map_task, BatchMapTransformFn._pre_process

    def told_task(*args: Any, **kwargs: Any) -> Generator[Any, Any, None]:
        diary.note("input to arrays")
        task, answer = run_task(*args, **kwargs), None
        while True:
            try:
                item = task.send(answer)
            except StopIteration:
                diary.note("waiting for input")
                return
            diary.note("storing")
            answer = yield item  # how long that took
            diary.note("building blocks")

    def told_batches(self: Any, blocks: Any) -> Iterator[Any]:
        batches = iter(batches_of(self, blocks))
        while True:
            diary.note("input to arrays")
            batch = next(batches, None)
            diary.note("building blocks")
            if batch is None:
                return
            yield batch

    pool._map_task = told_task
    BatchMapTransformFn._pre_process = told_batches


class Span(NamedTuple):
    """A stretch of time that a thread was at something."""

    thread: int
    state: str
    begun: float
    ended: float


class Days(NamedTuple):
    """What one actor did, from its first chip's begin to its last one's end, and how many chips the model made."""

    spans: list[Span]
    chips: int

    @classmethod
    def read(cls, path: Path) -> Days:
        """An actor's diary."""
        notes = [json.loads(line) for line in path.read_text().splitlines()]
        first = min(when for _, state, when, _ in notes if state == MODEL)
        last = max(when for _, state, when, _ in notes if state == "after the model")
        spans = []
        for thread in sorted({note[0] for note in notes}):
            mine = [(state, when) for who, state, when, _ in notes if who == thread]
            for (state, begun), (_, ended) in pairwise([*mine, ("", last)]):
                if ended > first and begun < last:
                    spans.append(Span(thread, state, max(begun, first), min(ended, last)))
        return cls(spans, sum(note[3] for note in notes))

    @property
    def model(self) -> list[Span]:
        """When the model was at work."""
        return sorted((span for span in self.spans if span.state == MODEL), key=lambda span: span.begun)

    @property
    def seconds(self) -> float:
        """Wall seconds from begin to end."""
        return self.model[-1].ended - self.model[0].begun

    @property
    def busy(self) -> float:
        """The share of them that the model was at work."""
        return sum(span.ended - span.begun for span in self.model) / self.seconds

    def made(self, begun: float, ended: float) -> float:
        """Calls of the model between two times; one that lies there in part counts in part."""
        parts = [(min(span.ended, ended) - max(span.begun, begun)) / (span.ended - span.begun) for span in self.model]
        return sum(part for part in parts if part > 0)

    def idle(self) -> dict[str, float]:
        """Why the model was not at work: shares of the wall time, by what the thread was at that next had a chip."""
        out = {state: 0.0 for state in STATES if state != MODEL}
        for before, after in pairwise(self.model):
            for span in self.spans:
                if span.thread == after.thread and span.begun < after.begun and span.ended > before.ended:
                    out[span.state] += min(span.ended, after.begun) - max(span.begun, before.ended)
        return {state: seconds / self.seconds for state, seconds in out.items()}

    def of_a_chip(self) -> dict[str, float]:
        """Seconds that a chip's threads were at each thing, whatever else went on meanwhile."""
        out = dict.fromkeys(STATES, 0.0)
        for span in self.spans:
            out[span.state] += span.ended - span.begun
        return {state: seconds / self.chips for state, seconds in out.items()}
