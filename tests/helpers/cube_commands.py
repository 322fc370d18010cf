"""What is done to a small cube as commands do it, each as a process of its own may: months, revisions, rollbacks.

Commands hold a lease, and are repeated as a user would. `Workshop` forks their processes from one that has imported
everything, so that each takes a fraction of a second.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import dying
import psutil
from months import month_target, run_month, shown, told
from small_cubes import SHARDS, drafted, label, write

from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.publish import door
from difffusr.pipeline.storage.lease import BEAT_S, TERM_S, Lease
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]
Command = Callable[[Places, Lease | None], object]


def a_new_month(places: Places, lease: Lease | None) -> None:
    run_month(*places, 2, 12, lease)


def a_month_written_again(places: Places, lease: Lease | None) -> None:
    """The third revision: of the one before the last, the objects are deleted."""
    run_month(*places, 1, 15, lease, keep=1)


def a_month_over_another_s_leftovers(places: Places, lease: Lease | None) -> None:
    run_month(*places, 3, 13, lease)


def back_by_one(places: Places, lease: Lease | None) -> None:
    door.rollback(*places, None, lease)


def back_to_the_first(places: Places, lease: Lease | None) -> None:
    door.rollback(*places, 1, lease)


def january(places: Places) -> None:
    run_month(*places, 1, 11, None)


def revisions(places: Places) -> None:
    for value in (11, 13, 14):
        run_month(*places, 1, value, None, keep=2)


def months(places: Places) -> None:
    for number in (1, 2, 3):
        run_month(*places, number, 10 + number, None)


def leftovers(places: Places) -> None:
    january(places)
    write(door.open_target(*places, drafted(places[0], 2), label(2)), 12, SHARDS[:2])


#: Commands, and the cube that each finds.
COMMANDS: dict[Command, Callable[[Places], None]] = {
    a_new_month: january,
    a_month_written_again: revisions,
    a_month_over_another_s_leftovers: leftovers,
    back_by_one: months,
    back_to_the_first: months,
}


def state(places: Places) -> Any:
    """What readers see, every object of a plain store, the history."""
    storage, staging = places
    objects = {}
    if not storage.url.startswith("icechunk+"):
        objects = {name: hashlib.sha256(storage.read(name)).hexdigest() for name in sorted(storage.names(""))}
    return shown(storage), objects, told(staging)


@dataclass(frozen=True)
class Month:
    """The command that writes a month whose pixels all have one value."""

    number: int
    value: int

    def __call__(self, places: Places, lease: Lease | None) -> None:
        run_month(*places, self.number, self.value, lease)


@dataclass(frozen=True)
class ShardsOfMonth:
    """As far as the shards of `Month`: its target is not closed, and nothing is published."""

    number: int
    value: int

    def __call__(self, places: Places, lease: Lease | None) -> None:
        write(month_target(*places, self.number, self.value, lease), self.value)
        assert lease is not None
        lease.check()


@dataclass(frozen=True)
class Work:
    """What a process is to do.

    Attributes:
        command: the command.
        places: on which cube.
        name: as the lease says it.
        words: file for what it says.
        order: what is to happen to it.
        beat_s, term_s: of its lease.
        patience_s: how long it comes again while another driver is at work.
    """

    command: Command
    places: Places
    name: str
    words: str
    order: dying.Order | None = None
    beat_s: float = BEAT_S
    term_s: float = TERM_S
    patience_s: float = 0.0

    def carry_out(self) -> None:
        """As a command does, in a process of its own: exit code 1 and one line where it fails."""
        words = os.open(self.words, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(words, 1)
        os.dup2(words, 2)
        os.fsync = lambda _: None  # type: ignore[assignment]  # who is killed loses no power
        note = dying.begin(self.order) if self.order is not None else None
        deadline = time.monotonic() + self.patience_s
        while (said := self._once()) and "is working on this store" in said and time.monotonic() < deadline:
            time.sleep(0.1)
        if note is not None and self.order is not None and not self.order.at:
            note()
        if said:
            print(f"error: {said}", flush=True)
            sys.exit(1)

    def _once(self) -> str:
        """How it ended; empty where it is done."""
        try:
            lease = Lease.acquire(self.places[1], self.name, beat_s=self.beat_s, term_s=self.term_s)
            try:
                self.command(self.places, lease)
            finally:
                lease.release()
        except DifffusrError as error:
            return str(error)
        return ""


@dataclass
class Forked:
    """A process at work.

    Attributes:
        words: the file with what it says.
    """

    process: BaseProcess
    words: Path

    @property
    def said(self) -> str:
        """What it has said by now."""
        return self.words.read_text() if self.words.exists() else ""

    def ended(self, patience_s: float = 120) -> int:
        """Its exit code, below zero the signal that ended it, once it has ended."""
        self.process.join(patience_s)
        assert self.process.exitcode is not None, f"it does not end: {self.said}"
        return self.process.exitcode

    def is_frozen(self, patience_s: float = 60) -> bool:
        """Whether it is stopped, once it is or has ended."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self.process.exitcode is not None:
                return False
            if psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED:
                return True
            time.sleep(0.01)
        raise AssertionError(f"it neither stops nor ends: {self.said}")

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGCONT)


#: One process is begun at a time.
_BEGINNING = threading.Lock()


@dataclass
class Workshop:
    """Begins processes that have imported everything already.

    Attributes:
        folder: for what they say.
    """

    folder: Path
    _begun: list[Forked] = field(default_factory=list)

    def begin(self, work: Callable[..., Any], /, **more: Any) -> Forked:
        """Begin work, all of it but `words`."""
        words = self.folder / f"said-{uuid4().hex[:8]}.txt"
        with _BEGINNING:
            process = _context().Process(target=_carry_out, args=(work(words=str(words), **more),), daemon=True)
            process.start()
        begun = Forked(process, words)
        self._begun.append(begun)
        return begun

    def end(self) -> None:
        """End whoever is still there, frozen ones too."""
        for one in self._begun:
            if one.process.exitcode is None:
                one.process.kill()
                one.process.join(10)


def _carry_out(work: Any) -> None:
    work.carry_out()


def _context() -> Any:
    """Where processes are forked from: one that has imported everything and has no thread."""
    context: Any = get_context("forkserver")
    context.set_forkserver_preload(["cube_commands", "icechunk", "s3fs", "zarr.storage"])
    # That process finds modules by the environment alone.
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")]))
    with patch.dict(os.environ, PYTHONPATH=path):
        forkserver.ensure_running()
    return context
