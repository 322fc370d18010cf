"""Who holds a lease: which process, on which machine, and whether it is certain that it runs no more."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True)
class Holder:
    """The holder of a lease, as the lease names it.

    Attributes:
        id: of this driver, random.
        run: name and period of the run.
        host, pid, boot: where it runs; `boot` distinguishes restarts of a machine.
        since: when it began, ISO 8601, UTC.
        beat: counts up while it lives.
        released: whether it ended properly.
        space: the PID namespace that `pid` belongs to: containers with one host's name each have a process 1.
        started: when the process started, in the kernel's ticks: a number that is given again has another one.
        silent: numbers of the leases before that were taken over because their holders gave no sign of life. Nobody
            knows whether these will wake up.
        after: numbers of the leases right before that were never released: their commands may be this one, repeated.
    """

    id: str
    run: str
    host: str
    pid: int
    boot: str
    since: str
    beat: int = 0
    released: bool = False
    space: str = ""
    started: int = 0
    silent: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @classmethod
    def of_this_process(cls, run: str) -> Holder:
        """This driver."""
        now, pid = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getpid()
        host, started = socket.gethostname(), _started(pid) or 0
        return cls(uuid4().hex, run, host, pid, _boot(), now, space=_space(), started=started)

    def is_surely_dead(self) -> bool:
        """Whether it ran where this process can see it, and no longer does. False does not mean that it is alive.

        A name of a host proves nothing: two machines or containers may share it.
        """
        here = (_boot(), _space())
        return all(here) and here == (self.boot, self.space) and _started(self.pid) != self.started

    def to_json(self) -> bytes:
        """As an object of the store."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    def __str__(self) -> str:
        return f"run {self.run} (process {self.pid} on {self.host}, since {self.since})"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    """The PID namespace of this process, unique as long as the machine runs; empty where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When a process of this namespace started, in ticks since the machine did; None if there is none."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the command in parentheses, may hold anything.
    state, *rest = facts.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])
