"""Shards as soon as their chips are staged: one Ray task each, entered in the ledger, and their chips let go of.

A thread of the driver's. It holds a few numbers a chip and a shard, in arrays, and as many tasks as may run at a time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from difffusr.pipeline.assemble.blend import ChipSource, blend_shard
from difffusr.pipeline.assemble.ledger import Entry, Ledger, shard_digest, write_entry
from difffusr.pipeline.chips.staging import delete_chip
from difffusr.pipeline.engine.session import result_of
from difffusr.pipeline.geo.grid import ChipIndex, Grid, ShardIndex
from difffusr.pipeline.plan.tables import Plan, Shards
from difffusr.pipeline.publish.target import Receipt, ShardWriter, Target
from difffusr.pipeline.storage.objects import Storage

#: Requests to the staging folder at a time: entries of the ledger, and chips deleted.
_REQUESTS = 8


#: Seconds between two looks at what has ended.
_POLL_S = 0.2


@dataclass(frozen=True, eq=False)
class ShardWork:
    """What is to be written.

    Attributes:
        plan: all of it.
        todo: (shards,) bool.
        numbers: (scenes,) int32 the cube's number of each of the plan's scenes.
        staged: (chips,) bool, what was staged before.
        is_seen: whether readers see a shard (its position) with these pixels (digest): then it is not written again.
        fill: whether a shard is written although chips of it failed.
    """

    plan: Plan
    todo: NDArray[np.bool_]
    numbers: NDArray[np.int32]
    staged: NDArray[np.bool_]
    is_seen: Callable[[int, str], bool]
    fill: bool


@dataclass
class ShardResult:
    """What became of the shards.

    Attributes:
        written: shards written.
        same: shards that would have come out as readers see them already.
        skipped: shards that were not written because chips of them failed.
        seconds: of core that the tasks took.
    """

    written: int = 0
    same: list[int] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0


class ShardStream:
    """Writes shards in the background. Tell it what became of each chip; `finish` waits for the rest."""

    def __init__(
        self,
        work: ShardWork,
        target: Target,
        grid: Grid,
        staging: Storage,
        ledger: Ledger,
        advance: Callable[[], None],
        *,
        keep_chips: bool,
        with_std: bool,
    ) -> None:
        self.result = ShardResult()
        self._work, self._target, self._grid, self._staging, self._ledger = work, target, grid, staging, ledger
        self._advance, self._keep_chips, self._with_std = advance, keep_chips, with_std
        self._shards: Shards = work.plan.shards
        self._failed = np.zeros(len(work.plan.chips), bool)
        self._touching = _Inverse.of(self._shards, len(work.plan.chips))
        self._waits = _count(self._shards, work.todo, ~work.staged)
        self._left = self._touching.count(work.todo)
        self._ready: deque[int] = deque(np.flatnonzero(work.todo & (self._waits == 0)).tolist())
        self._news: queue.SimpleQueue[tuple[NDArray[np.int64], bool] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._halted = threading.Event()
        self._cpus, self._limit = 0.1, 1
        self._thread = threading.Thread(target=self._run, name="shards", daemon=True)
        self._thread.start()

    def staged(self, positions: NDArray[np.int64]) -> None:
        """Chips are staged. Raises what went wrong meanwhile."""
        self._tell(positions, False)

    def failed(self, positions: NDArray[np.int64]) -> None:
        """Chips have failed. Raises what went wrong meanwhile."""
        self._tell(positions, True)

    def use(self, cpus: float, limit: int) -> None:
        """From now on at most `limit` tasks at a time, each asking for so many cores."""
        self._cpus, self._limit = cpus, limit

    def halt(self) -> None:
        """Begin no further shard."""
        self._halted.set()

    def finish(self) -> ShardResult:
        """Wait for all shards whose chips are there.

        Raises:
            DifffusrError: the store or a staged chip fails.
        """
        self._news.put(None)
        self._thread.join()
        self._raise()
        return self.result

    def _tell(self, positions: NDArray[np.int64], failed: bool) -> None:
        self._raise()
        if len(positions):
            self._news.put((positions, failed))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(_REQUESTS, "ledger") as pool:
                self._loop(pool)
        except BaseException as error:
            self._error = error

    def _loop(self, pool: ThreadPoolExecutor) -> None:
        writer, grid = ray.put(self._target.writer()), ray.put(self._grid)
        running: dict[Any, int] = {}
        open_end = True
        while open_end or running or (self._ready and not self._halted.is_set()):
            open_end = self._hear(open_end, wait=not running and not self._ready)
            while self._ready and len(running) < self._limit and not self._halted.is_set():
                if task := self._begin(self._ready.popleft(), writer, grid, pool):
                    running[task[0]] = task[1]
            if not running:
                continue
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=_POLL_S)
            if ended:
                self._end([(running.pop(task), result_of(task)) for task in ended], pool)

    def _hear(self, open_end: bool, *, wait: bool) -> bool:
        """Take in what became of chips; whether more is to come."""
        while open_end:
            try:
                news = self._news.get(timeout=_POLL_S) if wait else self._news.get_nowait()
            except queue.Empty:
                return True
            if news is None:
                return False
            positions, failed = news
            self._failed[positions] = failed
            for shard in self._touching.of_chips(positions):
                self._waits[shard] -= 1
                if self._waits[shard] == 0 and self._work.todo[shard]:
                    self._ready.append(int(shard))
            wait = False
        return open_end

    def _begin(self, i: int, writer: Any, grid: Any, pool: ThreadPoolExecutor) -> tuple[Any, int] | None:
        """Start a shard's task, unless it need not or must not be written."""
        members = self._shards.members[self._shards.first[i] : self._shards.first[i + 1]]
        name = self._name(i)
        if self._failed[members].any():
            if not self._work.fill:
                self.result.skipped += 1
                self._advance()
                return None
            if self._work.is_seen(i, shard_digest(self._shards, i, self._work.numbers, self._failed)):
                self.result.same.append(i)
                self._advance()
                return None
        for entry in self._ledger.in_state(name, self._target.state(int(self._shards.epsg[i]))):
            self._staging.delete(entry.object_name)  # before its pixels change
        sources, gaps = self._sources(members)
        task = ray.remote(write_shard).options(num_cpus=self._cpus, max_retries=5)
        place = int(self._shards.epsg[i]), ShardIndex(int(self._shards.row[i]), int(self._shards.col[i]))
        return task.remote(writer, grid, *place, sources, gaps, self._staging, self._with_std), i

    def _sources(self, members: NDArray[np.int32]) -> tuple[list[ChipSource], list[ChipIndex]]:
        """The chips that a shard is blended from, and the places of those that failed."""
        sources, gaps = [], []
        for member in members.tolist():
            chip = self._work.plan.chips[member]
            if self._failed[member]:
                gaps.append(chip.index)
                continue
            scenes = self._work.plan.chips.scenes[member]
            numbers = tuple(int(self._work.numbers[scene]) for scene in scenes if scene >= 0)
            sources.append(ChipSource(chip.index, chip.object_name, numbers))
        return sources, gaps

    def _end(self, ended: Sequence[tuple[int, WrittenShard]], pool: ThreadPoolExecutor) -> None:
        """Make shards durable, enter them, and let go of the chips that nothing needs any more."""
        self._target.accept([written.receipt for _, written in ended])
        for _ in pool.map(lambda pair: self._enter(*pair), ended):
            pass
        free: list[str] = []
        for i, written in ended:
            self.result.written += 1
            self.result.seconds += written.seconds
            members = self._shards.members[self._shards.first[i] : self._shards.first[i + 1]]
            if not self._failed[members].any():  # else the shard is written again once they are there
                self._left[members] -= 1
                free += [self._work.plan.chips[int(m)].object_name for m in members if self._left[m] == 0]
            self._advance()
        if not self._keep_chips:
            list(pool.map(lambda name: delete_chip(self._staging, name), free))

    def _enter(self, i: int, written: WrittenShard) -> None:
        members = self._shards.members[self._shards.first[i] : self._shards.first[i + 1]]
        missing = [self._work.plan.chips[int(m)].name for m in members if self._failed[m]]
        digest = shard_digest(self._shards, i, self._work.numbers, self._failed)
        entry = Entry(self._name(i), digest, self._target.state(int(self._shards.epsg[i])))
        facts = {"objects": written.receipt.objects, "missing": missing, "valid_share": written.valid_share}
        write_entry(self._staging, entry, facts)

    def _name(self, i: int) -> str:
        return f"{self._shards.epsg[i]}/{self._shards.row[i]}_{self._shards.col[i]}"


@dataclass(frozen=True)
class WrittenShard:
    """What a task returns: the store's receipt, the share of pixels with data, and the seconds of core it took."""

    receipt: Receipt
    valid_share: float
    seconds: float


def write_shard(
    writer: ShardWriter,
    grid: Grid,
    epsg: int,
    index: ShardIndex,
    chips: list[ChipSource],
    gaps: list[ChipIndex],
    staging: Storage,
    with_std: bool,
) -> WrittenShard:
    """Blend one shard and write it whole.

    Args:
        chips: those that touch it and are staged.
        gaps: places of those that failed; what of them no neighbour fills is flagged.

    Raises:
        StoreError: a staged chip or the store fails.
    """
    begun = time.process_time()
    data = blend_shard(grid, index, chips, staging, with_std=with_std, gaps=gaps)
    receipt = writer.write(epsg, index, data)
    valid = float((data.source > 0).mean())
    return WrittenShard(receipt, round(valid, 6), time.process_time() - begun)


@dataclass(frozen=True, eq=False)
class _Inverse:
    """Which shards each chip touches: those of chip c are `shards[first[c]:first[c + 1]]`."""

    first: NDArray[np.int64]
    shards: NDArray[np.int32]

    @classmethod
    def of(cls, shards: Shards, chips: int) -> _Inverse:
        owner = np.repeat(np.arange(len(shards), dtype=np.int32), np.diff(shards.first))
        order = np.argsort(shards.members, kind="stable")
        first = np.searchsorted(shards.members[order], np.arange(chips + 1))
        return cls(first.astype(np.int64), owner[order])

    def of_chips(self, positions: Iterable[int]) -> Iterable[int]:
        """The shards of some chips, one after the other."""
        for position in positions:
            yield from self.shards[self.first[position] : self.first[position + 1]].tolist()

    def count(self, chosen: NDArray[np.bool_]) -> NDArray[np.int16]:
        """(chips,) how many of the chosen shards each chip touches."""
        sums = np.concatenate([[0], np.cumsum(chosen[self.shards])])
        return np.diff(sums[self.first]).astype(np.int16)


def _count(shards: Shards, todo: NDArray[np.bool_], missing: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(shards,) how many chips that a shard needs are missing."""
    sums = np.concatenate([[0], np.cumsum(missing[shards.members])])
    waits: NDArray[np.int32] = np.diff(sums[shards.first]).astype(np.int32)
    return waits
