"""Writes each shard as soon as its chips are staged: one Ray task, an entry in the ledger, then its chips are deleted.

Runs in a thread of the driver. It holds a few numbers per chip and shard, in arrays, and the tasks in flight.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import ray
from numpy.typing import NDArray

from difffusr.pipeline.assemble.ledger import REQUESTS, Entry, Ledger, Written, enter, shard_digest
from difffusr.pipeline.assemble.writing import WrittenShard
from difffusr.pipeline.chips import delete_chip
from difffusr.pipeline.engine import POLL_S, dispatch
from difffusr.pipeline.geo import PlaceName
from difffusr.pipeline.plan import Plan, Shards
from difffusr.pipeline.publish import Target
from difffusr.pipeline.storage import Storage
from difffusr.pipeline.watch import tell_shard


class ShardMaker(Protocol):
    """Starts the tasks that make shards and write them."""

    def shared(self) -> Any:
        """What all tasks need, sent to the cluster once."""

    def begin(self, i: int, cpus: float, writer: Any, shared: Any, failed: NDArray[np.bool_]) -> Any:
        """Start the task of the i-th shard, whose result is a `WrittenShard`.

        Args:
            cpus: cores that it may ask for.
            writer: reference to the target's writer.
            shared: what `shared` returned.
            failed: (chips,) bool, whether a chip has failed.
        """


@dataclass(frozen=True, eq=False)
class ShardWork:
    """The shards to write.

    Attributes:
        plan: the whole plan.
        todo: (shards,) bool, whether to write a shard.
        numbers: (scenes,) int32 the cube's number of each of the plan's scenes.
        staged: (chips,) bool, chips staged before.
        is_seen: whether readers see a shard (position) with these pixels (digest): then it is not written again.
        maker: starts their tasks.
        fill: whether to write a shard although chips of it failed.
        guard: raises where this driver may write no more; called before every step.
    """

    plan: Plan
    todo: NDArray[np.bool_]
    numbers: NDArray[np.int32]
    staged: NDArray[np.bool_]
    is_seen: Callable[[int, str], bool]
    maker: ShardMaker
    fill: bool
    guard: Callable[[], None] = lambda: None


@dataclass
class ShardResult:
    """What happened to the shards.

    Attributes:
        written: shards written.
        same: shards that readers see already with the same pixels.
        skipped: shards that were not written because chips of them failed.
        seconds: CPU seconds of the tasks.
        broken: staged objects that were missing, or not as they were written. They are deleted, and shards with them
            are not written: their chips have to be computed again.
        unlike: shards that were not written because they came out otherwise than they have to.
        overtaken: names of shards that somebody else has written meanwhile: they have to be written again.
    """

    written: int = 0
    same: list[int] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0
    broken: set[str] = field(default_factory=set)
    unlike: list[int] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)


class ShardStream:
    """Writes shards in the background. Report every chip to `staged` or `failed`; `finish` waits for the rest. It calls
    `advance` with the seconds that each took."""

    def __init__(
        self,
        work: ShardWork,
        target: Target,
        staging: Storage,
        ledger: Ledger,
        advance: Callable[[float], None],
        *,
        keep_chips: bool,
    ) -> None:
        self.result = ShardResult()
        self._work, self._target, self._staging, self._ledger = work, target, staging, ledger
        self._advance, self._keep_chips = advance, keep_chips
        self._shards: Shards = work.plan.shards
        self._failed = np.zeros(len(work.plan.chips), bool)
        self._touching = _Inverse.of(self._shards, len(work.plan.chips))
        self._waits = _count(self._shards, ~work.staged)
        self._left = self._touching.count(work.todo)
        self._ready: deque[int] = deque(np.flatnonzero(work.todo & (self._waits == 0)).tolist())
        self._news: queue.SimpleQueue[tuple[NDArray[np.int64], bool] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._halted = threading.Event()
        self._open_end = True
        self._begun: dict[int, float] = {}
        self._cpus, self._limit = 0.1, 1
        self._thread = threading.Thread(target=self._run, name="shards", daemon=True)
        self._thread.start()

    def staged(self, positions: NDArray[np.int64]) -> None:
        """Chips are staged. Raises an error of the background thread."""
        self._tell(positions, False)

    def failed(self, positions: NDArray[np.int64]) -> None:
        """Chips have failed. Raises an error of the background thread."""
        self._tell(positions, True)

    def use(self, cpus: float, limit: int) -> None:
        """From now on run at most `limit` tasks at a time, each with so many cores."""
        self._cpus, self._limit = cpus, limit

    def halt(self) -> None:
        """Start no further shard."""
        self._halted.set()

    def finish(self) -> ShardResult:
        """Wait for all shards whose chips are staged.

        Raises:
            DifffusrError: the store fails.
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
            writer, shared = ray.put(self._target.writer(level=0)), self._work.maker.shared()
            begin = partial(self._begin, writer=writer, shared=shared)
            for ended in dispatch(self._ready, begin, lambda: self._limit, self._halted.is_set, self._hear):
                self._end(ended)
        except BaseException as error:
            self._error = error

    def _hear(self, wait: bool) -> bool:
        """Take in reports on chips; returns whether more may come."""
        while self._open_end:
            try:
                news = self._news.get(timeout=POLL_S) if wait else self._news.get_nowait()
            except queue.Empty:
                return True
            if news is None:
                self._open_end = False
                return False
            positions, failed = news
            self._failed[positions] = failed
            for shard in self._touching.of_chips(positions):
                self._waits[shard] -= 1
                if self._waits[shard] == 0 and self._work.todo[shard]:
                    self._ready.append(int(shard))
            wait = False
        return False

    def _begin(self, i: int, writer: Any, shared: Any) -> Any | None:
        """Start a shard's task; None if it need not or must not be written."""
        self._work.guard()
        members = self._shards.members[self._shards.first[i] : self._shards.first[i + 1]]
        name = self._name(i)
        if self._failed[members].any():
            if not self._work.fill:
                self.result.skipped += 1
                self._advance(0.0)
                return None
            if self._work.is_seen(i, shard_digest(self._shards, i, self._work.numbers, self._failed)):
                self.result.same.append(i)
                self._advance(0.0)
                return None
        for entry in self._ledger.in_states(name, self._target.replaced(int(self._shards.epsg[i]))):
            self._staging.delete(entry.object_name)  # before its pixels change
        self._begun[i] = time.monotonic()
        return self._work.maker.begin(i, self._cpus, writer, shared, self._failed)

    def _end(self, ended: Sequence[tuple[int, WrittenShard]]) -> None:
        """Make shards durable, enter them, and delete the chips that no shard needs any more, and those that are
        broken."""
        self._work.guard()
        done = [(i, written) for i, written in ended if written.receipt.objects]
        enter(self._staging, self._target, [self._entered(*pair) for pair in done])
        for i, written in ended:
            self.result.broken.update(written.broken)
            if written.overtaken:
                self.result.overtaken.append(self._name(i))
            elif not (written.receipt.objects or written.broken):
                self.result.unlike.append(i)
        self._delete_chips({name for _, written in ended for name in written.broken})
        free: list[str] = []
        for i, written in done:
            self.result.written += 1
            self.result.seconds += written.seconds
            seconds = time.monotonic() - self._begun.pop(i)
            tell_shard(self._name(i), seconds)
            members = self._shards.members[self._shards.first[i] : self._shards.first[i + 1]]
            if not self._failed[members].any():  # else the shard will be written again with them
                self._left[members] -= 1
                free += [self._work.plan.chips[int(m)].object_name for m in members if self._left[m] == 0]
            self._advance(seconds)
        if not self._keep_chips:
            self._delete_chips(free)

    def _delete_chips(self, object_names: Collection[str]) -> None:
        if object_names:
            with ThreadPoolExecutor(REQUESTS, "chips") as pool:
                list(pool.map(partial(delete_chip, self._staging), object_names))

    def _entered(self, i: int, written: WrittenShard) -> Written:
        """A finished shard with its entry."""
        members = self._shards.members[self._shards.first[i] : self._shards.first[i + 1]]
        missing = [self._work.plan.chips[int(m)].name for m in members if self._failed[m]]
        digest = shard_digest(self._shards, i, self._work.numbers, self._failed)
        entry = Entry(self._name(i), digest, self._target.state(int(self._shards.epsg[i])))
        return Written(entry, written.receipt, {"missing": missing, "valid_share": written.valid_share})

    def _name(self, i: int) -> str:
        return str(PlaceName(int(self._shards.epsg[i]), *self._shards.place(i)))


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
        """(chips,) number of chosen shards that each chip touches."""
        sums = np.concatenate([[0], np.cumsum(chosen[self.shards])])
        return np.diff(sums[self.first]).astype(np.int16)


def _count(shards: Shards, missing: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(shards,) number of missing chips per shard."""
    sums = np.concatenate([[0], np.cumsum(missing[shards.members])])
    waits: NDArray[np.int32] = np.diff(sums[shards.first]).astype(np.int32)
    return waits
