"""Stores of every kind that drills are done on: prepared once, and copied for each case."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cube_commands import Places

from difffusr.pipeline.storage.objects import Storage

#: Kinds of stores.
STORES = ("plain", "Icechunk", "plain on S3", "Icechunk on S3")


@dataclass
class Ground:
    """A place for cubes of one kind of store.

    Attributes:
        kind: one of `STORES`.
        folder: on this machine, for what is kept there.
        bucket: on S3, for the others.
        options: what leads to the bucket.
    """

    kind: str
    folder: Path
    bucket: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    @property
    def is_icechunk(self) -> bool:
        return self.kind.startswith("Icechunk")

    @property
    def is_on_s3(self) -> bool:
        return self.kind.endswith("S3")

    @property
    def prefix(self) -> str:
        """Of its objects in the bucket."""
        return self.kind.replace(" ", "-")

    def at(self, name: str) -> Places:
        """A cube and its staging folder, by name."""
        root = f"s3://{self.bucket}/{self.prefix}/{name}" if self.is_on_s3 else f"{self.folder / name}"
        mark = "icechunk+" if self.is_icechunk else ""
        return Storage(f"{mark}{root}/cube", self.options), Storage(f"{root}/staging", self.options)

    def prepared(self, name: str, prepare: Callable[[Places], None]) -> str:
        """Make a cube; returns its name."""
        prepare(self.at(name))
        return name

    def copy(self, name: str) -> Places:
        """A copy of a cube, to do with as a case likes."""
        new = f"{name}-{next(self._numbers)}"
        if not self.is_on_s3:
            shutil.copytree(self.folder / name, self.folder / new)
            return self.at(new)
        fs, _ = Storage(f"s3://{self.bucket}", self.options).filesystem()
        fs.invalidate_cache()
        root = f"{self.bucket}/{self.prefix}"
        for path in fs.find(f"{root}/{name}"):
            fs.cp_file(path, path.replace(f"{root}/{name}/", f"{root}/{new}/", 1))
        return self.at(new)

    def forget(self, places: Places) -> None:
        """Delete a copy on this machine's disk."""
        if not self.is_on_s3:
            shutil.rmtree(Path(places[1].url).parent)
