"""What the ledger knows of a written shard: checksums and sizes of its objects.

Workers import this module: it must not import what only the driver needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from difffusr.pipeline.storage import Storage, read_document


@dataclass(frozen=True)
class Facts:
    """The content of an entry.

    Attributes:
        objects: sha256 by path in the store.
        missing: names of the chips that it was made without.
        sizes: bytes by path in the store; empty in entries of earlier versions.
    """

    objects: Mapping[str, str]
    missing: Sequence[str] = field(default=())
    sizes: Mapping[str, int] = field(default_factory=dict)

    def at(self, paths: Sequence[str]) -> Facts:
        """The same of a shard whose objects lie at these paths: under the keys of a later revision of its zone."""
        lies = {_variable(path): path for path in paths}
        objects = {lies[_variable(path)]: digest for path, digest in self.objects.items() if _variable(path) in lies}
        sizes = {lies[_variable(path)]: size for path, size in self.sizes.items() if _variable(path) in lies}
        return Facts(objects, self.missing, sizes)


def read_facts(staging: Storage, object_name: str) -> Facts:
    """The content of an entry, by its object.

    Raises:
        StoreError: it cannot be read.
    """
    return read_document(staging, object_name, Facts, "delete it, and `difffusr run` writes the shard again")


def _variable(path: str) -> str:
    """The variable that an object is of: zone/level/variable/key."""
    return "".join(path.split("/")[2:3])
