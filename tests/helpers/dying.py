"""A process that dies, or is frozen, at its n-th request of a store: what the drills put into processes of their own.

`tests/drills/hook/sitecustomize.py` puts it into every Python process that a drill starts, Ray's workers among them;
without an order in the environment it does nothing. The pipeline knows nothing of it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

#: Variable of the environment that holds orders.
VARIABLE = "DIFFFUSR_DRILL"


class Place(NamedTuple):
    """A function, or a method of a class.

    Attributes:
        module: where it is defined.
        owner: its class; "" for a function.
        name: its own.
    """

    module: str
    owner: str
    name: str

    def owner_in(self, module: ModuleType) -> Any:
        """What holds it."""
        return getattr(module, self.owner) if self.owner else module


def _places(module: str, owner: str, *names: str) -> list[Place]:
    return [Place(module, owner, name) for name in names]


_PLAIN, _ICECHUNK = "difffusr.pipeline.publish.plain", "difffusr.pipeline.publish.icechunk"

#: What makes one request of a store.
REQUESTS = [
    *_places(
        "difffusr.pipeline.storage.objects", "Storage",
        "write", "put", "create", "exchange", "tag", "modified", "read", "exists", "names", "sizes", "delete",
    ),
    *_places("zarr.storage._local", "LocalStore", "set", "get"),
    *_places("zarr.storage._fsspec", "FsspecStore", "set", "get"),
    *_places(_PLAIN, "", "_link"),
]  # fmt: skip

#: And of an Icechunk repository what changes something.
REQUESTS_OF_ICECHUNK = [
    *_places("icechunk.repository", "Repository", "reset_branch", "create_branch", "delete_branch", "create_tag"),
    *_places("icechunk.session", "Session", "commit"),
]

#: Objects that an Icechunk repository is given, too.
_OBJECTS_OF_ICECHUNK = _places("icechunk.store", "IcechunkStore", "set")

#: What a process is about. Of two that are within each other the outer one counts, but for `_INNER`.
PHASES = {
    "planning": _places("difffusr.pipeline.assemble.continent.planning", "", "plan_continent"),
    "warping": _places("difffusr.pipeline.assemble.continent.maker", "", "made_shard"),
    "begin": [*_places(_PLAIN, "PlainTarget", "begin"), *_places(_ICECHUNK, "IcechunkTarget", "begin")],
    "shards": [*_places(_PLAIN, "PlainWriter", "write"), *_places(_ICECHUNK, "IcechunkWriter", "write")],
    "overviews": [
        *_places("difffusr.pipeline.assemble.halving", "", "write_overview"),
        *_places("difffusr.pipeline.assemble.overviews", "", "write_overviews"),
    ],
    "settling": [*_places(_PLAIN, "PlainTarget", "settle"), *_places(_ICECHUNK, "IcechunkTarget", "settle")],
    "publish": [*_places(_PLAIN, "PlainTarget", "publish"), *_places(_ICECHUNK, "IcechunkTarget", "publish")],
    "finish": _places("difffusr.pipeline.publish.door", "", "finish_publishing"),
    "rollback": _places("difffusr.pipeline.publish.door", "", "rollback"),
    "deletion": [*_places(_PLAIN, "PlainTarget", "tidy"), *_places(_ICECHUNK, "IcechunkTarget", "tidy")],
    "deletion of chips": _places("difffusr.pipeline.assemble.shards", "ShardStream", "_delete_chips"),
    "deletion of chips that were left": _places("difffusr.pipeline.run.publishing", "", "_let_chips_go"),
}
_INNER = ("deletion", "finish")

#: The phase of what belongs to no other.
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Order:
    """What is to happen.

    Attributes:
        note: the file in which the victim says who it is. Whoever creates it is the only one.
        at: at which of its requests; 0: at none, they are all noted in the end.
        phase: only requests of this phase count; "": all.
        name: only requests of this name, or of one of these ("set or exchange"); "": all.
        freeze: stop it (SIGSTOP) instead of killing it (SIGKILL).
        worker: only Ray's workers, instead of only the process that began it all.
        one_by_one: one request after the other, so that the n-th is the same each time.
    """

    note: str
    at: int = 0
    phase: str = ""
    name: str = ""
    freeze: bool = False
    worker: bool = False
    one_by_one: bool = True

    def environment(self, *more: Order) -> dict[str, str]:
        """What a process has to be given that is to obey this and more orders: each has a victim of its own."""
        hook, helpers = Path(__file__).resolve().parent.parent / "drills" / "hook", Path(__file__).resolve().parent
        path = os.pathsep.join(filter(None, [str(hook), str(helpers), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path, VARIABLE: json.dumps([asdict(one) for one in (self, *more)])}


@dataclass(frozen=True)
class Victim:
    """Who died or was frozen, as it said itself right before.

    Attributes:
        pid, started: of its process; `started` as in /proc.
        called: its command line.
        phase, request: what it was about to do.
        at: which of its requests it was.
    """

    pid: int
    started: int
    called: str
    phase: str
    request: str
    at: int

    @classmethod
    def noted(cls, note: Path) -> Victim | None:
        """As the file says; None if nobody came to it."""
        return cls(**json.loads(note.read_text())) if note.exists() and note.stat().st_size else None

    def is_there(self) -> bool:
        """Whether its process is; a zombie that nobody has waited for is not."""
        return _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])


class _Obeying:
    """Counts the requests of this process, and obeys."""

    def __init__(self, order: Order) -> None:
        self.order, self.made = order, list[tuple[str, str]]()
        self._phases: list[str] = []
        self._lock, self._counted, self._done = threading.Lock(), 0, False

    def note(self, name: str) -> None:
        """A request is about to be made."""
        if threading.current_thread().name == "lease":
            return  # its beats come when they come
        with self._lock:
            phase, order = self._phase(), self.order
            self.made.append((phase, name))
            if (
                self._done
                or not order.at
                or order.phase not in ("", phase)
                or (order.name and name not in order.name.split(" or "))
            ):
                return
            if order.worker != _is_worker():
                return
            self._counted += 1
            if self._counted < order.at:
                return
            self._done = True
            if self._is_first(phase, name):
                os.kill(os.getpid(), signal.SIGSTOP if order.freeze else signal.SIGKILL)

    def tell(self) -> None:
        """Write all requests made so far into the order's file, by phase and name."""
        Path(self.order.note).write_text(json.dumps(self.made))

    def _phase(self) -> str:
        inner = [phase for phase in self._phases if phase in _INNER]
        return (inner[-1:] or self._phases[:1] or [ELSEWHERE])[0]

    def _is_first(self, phase: str, name: str) -> bool:
        called = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        victim = Victim(os.getpid(), _started(os.getpid()) or 0, called, phase, name, self._counted)
        partial = Path(f"{self.order.note}.{os.getpid()}")
        partial.write_text(json.dumps(asdict(victim)))
        try:
            os.link(partial, self.order.note)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """What is done meanwhile is of a phase."""
        self._phases.append(phase)
        try:
            yield
        finally:
            self._phases.remove(phase)


def _is_worker() -> bool:
    return bool(sys.argv) and "default_worker" in sys.argv[0]


def begin(order: Order) -> Callable[[], None]:
    """Obey from now on; returns what tells of all requests made so far."""
    this = _Obeying(order)
    wrapped: dict[str, list[tuple[Place, Callable[..., Any]]]] = {}
    for place in [*REQUESTS, *REQUESTS_OF_ICECHUNK, *_OBJECTS_OF_ICECHUNK]:
        wrapped.setdefault(place.module, []).append((place, counted(this.note, place.name)))
    for phase, places in PHASES.items():
        for place in places:
            wrapped.setdefault(place.module, []).append((place, _of_phase(this, phase)))

    def change(module: ModuleType) -> None:
        for place, wrapper in wrapped[module.__name__]:
            before = getattr(place.owner_in(module), place.name)
            after = wrapper(before)
            setattr(place.owner_in(module), place.name, after)
            if not place.owner:  # whoever has imported the function already
                for other in list(sys.modules.values()):
                    if vars(other).get(place.name) is before:
                        setattr(other, place.name, after)
        if order.one_by_one and hasattr(module, "_REQUESTS"):
            module._REQUESTS = 1

    if order.one_by_one:
        wrapped.setdefault("difffusr.pipeline.publish.placing", [])
    for name in wrapped.keys() & sys.modules.keys():
        change(sys.modules[name])
    sys.meta_path.insert(0, _Changing({name for name in wrapped if name not in sys.modules}, change))
    return this.tell


def counted(note: Callable[[str], None], name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that calls something with a request's name before each."""

    def wrapper(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def made(*args: Any, **more: Any) -> Any:
            note(name)
            return method(*args, **more)

        return made

    return wrapper


def _of_phase(this: _Obeying, phase: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def wrapper(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def done(*args: Any, **more: Any) -> Any:
            with this.within(phase):
                return method(*args, **more)

        return done

    return wrapper


class _Changing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Changes modules right after they are imported."""

    def __init__(self, names: set[str], change: Callable[[ModuleType], None]) -> None:
        self._names, self._change = names, change
        self._loaders: dict[str, importlib.abc.Loader] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As the others say, with this in place of their loader."""
        if name not in self._names:
            return None
        self._names.discard(name)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        self._loaders[name], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As usual."""
        return self._loaders[spec.name].create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As usual, and then change it."""
        loader = self._loaders[module.__name__]
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = loader
        loader.exec_module(module)
        self._change(module)


def obey_environment() -> None:
    """Obey the orders in the environment, if there are any."""
    for order in json.loads(os.environ.get(VARIABLE, "[]")):
        begin(Order(**order))
