"""Names of what `verify` has found damaged, left in the run's folder for the next run.

`status` imports this module: it must not import what reads a cube.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage, read_document

log = logging.getLogger("difffusr.run")

_NAME = "damaged.json"


@dataclass(frozen=True)
class Damaged:
    """Names of what is damaged.

    Attributes:
        shards: of shards and of shards of overviews, missing ones included.
        chips: staged objects of chips.
        documents: paths of documents and coordinates, which every run looks at.
    """

    shards: Sequence[str] = ()
    chips: Sequence[str] = ()
    documents: Sequence[str] = ()


def note_damaged(staging: Storage, found: Damaged) -> None:
    """Leave the names in a run's folder for the next run; without any, that nothing is left.

    Raises:
        StoreError: the store refuses.
    """
    if found != Damaged():
        staging.write(_NAME, json.dumps(asdict(found), indent=1).encode())
    elif staging.exists(_NAME):
        staging.delete(_NAME)


def is_damage_noted(staging: Storage) -> bool:
    """Whether names are left that no run has looked at."""
    return staging.exists(_NAME)


def read_damaged(staging: Storage) -> Damaged:
    """What was left; nothing, with a warning, where it cannot be understood."""
    if not staging.exists(_NAME):
        return Damaged()
    try:
        return read_document(staging, _NAME, Damaged, "`difffusr verify` writes it anew")
    except StoreError as error:
        log.warning("%s", error)
        return Damaged()
