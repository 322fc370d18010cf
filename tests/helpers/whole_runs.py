"""`difffusr run` over the smallest world, in a process of its own, and what its cube holds."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil
import yaml
import zarr
from dying import Order

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.cube.store import root_of, store_of
from difffusr.pipeline.publish.publications import records
from difffusr.pipeline.scenes.synthetic.world import DemoWorld
from difffusr.pipeline.storage.places import cube_staging_of, storage_of

#: Height and width of the smallest world, in metres.
SIZE_M = (600, 600)

#: Seconds that a run may take.
_PATIENCE_S = 280


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, below zero a signal, and what it said."""

    code: int
    said: str

    @property
    def is_one_line(self) -> bool:
        """Whether it has one line that says what went wrong, and no traceback."""
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return len(errors) == 1 and "Traceback" not in self.said


@dataclass(frozen=True)
class Begun:
    """A command at work.

    Attributes:
        words: the file with what it says.
    """

    process: subprocess.Popen[bytes]
    words: Path

    def ended(self) -> Ended:
        """How it ends. It may leave processes that work on for a moment: nobody waits for these."""
        try:
            self.process.wait(_PATIENCE_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        return Ended(self.process.returncode, self.words.read_text())

    def everybody(self) -> list[psutil.Process]:
        """It and all processes that it has begun."""
        this = psutil.Process(self.process.pid)
        return [this, *this.children(recursive=True)]


@dataclass(frozen=True)
class Job:
    """A run's configuration, and what becomes of it."""

    config: Path

    @classmethod
    def write(cls, world: DemoWorld, folder: Path, **sections: Mapping[str, Any]) -> Job:
        """A configuration in a folder: small chips, few steps, one actor; sections are extended."""
        content: dict[str, Any] = {
            "area": {"bbox": [float(edge) for edge in world.bbox]},
            "period": {"start": world.period[0], "end": world.period[1]},
            "source": {"static_catalog": str(world.catalog)},
            "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 256, "chunk_px": 128},
            "model": {"sampler_steps": 2},
            "compute": {"actors_max": 1},
            "store": {"url": "cube.zarr"},
        }
        for section, values in sections.items():
            content[section] = {**content.get(section, {}), **values}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.yaml").write_text(yaml.safe_dump(content))
        return cls(folder / "run.yaml")

    def changed(self, **sections: Mapping[str, Any]) -> None:
        """Extend sections of the configuration."""
        content = yaml.safe_load(self.config.read_text())
        for section, values in sections.items():
            content[section] = {**content.get(section, {}), **values}
        self.config.write_text(yaml.safe_dump(content))

    def copy(self, folder: Path) -> Job:
        """A copy of all that it has left so far."""
        shutil.copytree(self.config.parent, folder)
        return Job(folder / self.config.name)

    @property
    def settings(self) -> RunConfig:
        return load_config(self.config)

    def begin(self, *words: str, order: Order | None = None, more: Sequence[Order] = ()) -> Begun:
        """Begin `difffusr run`, or another command, whose last word is the configuration."""
        program = [sys.executable, "-c", "from difffusr.pipeline.commands.cli import main; main()"]
        said = self.config.parent / f"said-{uuid4().hex[:8]}.txt"
        with said.open("w") as file:
            process = subprocess.Popen(
                [*program, *(words or ("run",)), str(self.config)],
                cwd=self.config.parent,
                env=None if order is None else order.environment(*more),
                stdout=file,
                stderr=file,
            )
        return Begun(process, said)

    def call(self, *words: str, order: Order | None = None) -> Ended:
        """`begin`, and wait for its end."""
        return self.begin(*words, order=order).ended()

    def content(self) -> dict[str, str]:
        """What the cube holds, by path: sha256 of every object of a plain store, of every array of an Icechunk
        repository; for both, what readers see."""
        storage = storage_of(self.settings)
        if storage.url.startswith("icechunk+"):
            return self.pixels()
        return {name: sha256(storage.read(name)) for name in sorted(storage.names(""))}

    def pixels(self) -> dict[str, str]:
        """sha256 of every array that readers see, by path."""
        root = root_of(store_of(storage_of(self.settings)))
        arrays = (member for _, member in root.members(max_depth=None) if isinstance(member, zarr.Array))
        return {array.path: sha256(_bytes(np.asarray(array[...]))) for array in arrays}

    def told(self) -> list[tuple[int, str, str]]:
        """The history: number, kind and state of every publication."""
        return [(one.number, one.kind, one.state) for one in records(cube_staging_of(self.settings))]


def _bytes(values: np.ndarray) -> bytes:
    return values.tobytes() if values.dtype.kind in "biuf" else repr(values.tolist()).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wait_for(what: Callable[[], bool], patience_s: float = 120) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it does not come to it"
        time.sleep(0.05)
