"""Scenes set aside: they have a file that cannot be read, so the next best take their place.

What a run finds is kept in its staging folder, so that the next plan does not choose such a scene again; every plan
first tries the window that failed, and forgets a scene that can be read there by now or has another version.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from difffusr.pipeline.engine import in_order
from difffusr.pipeline.geo import ChipIndex, Grid, PlaceName
from difffusr.pipeline.ground.errors import ReadError, StoreError
from difffusr.pipeline.scenes import MASK, Scene, Unread, read_window
from difffusr.pipeline.storage import Storage, read_document

log = logging.getLogger("difffusr.planner")

#: A scene that fails in more chips than this is set aside for all.
_MANY: Final = 8

_FILE: Final = "aside.json"


@dataclass(frozen=True)
class SetAside:
    """A scene that is not to be used.

    Attributes:
        scene, version: its id and `Scene.version_key`.
        band, why: the file that failed, and the reason.
        chips: names of the chips in which it failed, the first first.
        everywhere: whether it is not to be used in any chip.
    """

    scene: str
    version: str
    band: str
    why: str
    chips: tuple[str, ...]
    everywhere: bool


@dataclass(frozen=True)
class Aside:
    """The scenes set aside, by id."""

    scenes: Mapping[str, SetAside]

    @classmethod
    def read(cls, staging: Storage) -> Aside:
        """What earlier runs have found; nothing where they found nothing.

        Raises:
            StoreError: the folder cannot be read.
        """
        if not staging.exists(_FILE):
            return cls({})
        entries = read_document(staging, _FILE, list[SetAside], "delete it, and run again")
        for one in entries:
            if not (one.chips and all(map(_is_place, one.chips))):
                raise StoreError(
                    f"{staging.url}/{_FILE}: cannot be understood (the chips of scene {one.scene}); delete it, and run "
                    "again"
                )
        return cls({one.scene: one for one in entries})

    def write(self, staging: Storage) -> None:
        """Keep it for the next plan. Raises StoreError."""
        entries = [asdict(self.scenes[name]) for name in sorted(self.scenes)]
        staging.write(_FILE, json.dumps(entries, indent=1, sort_keys=True).encode())

    def still_unreadable(self, scenes: Sequence[Scene], grid: Grid) -> Aside:
        """Those of them that still cannot be read; scenes of another version are forgotten, scenes that are not among
        these are kept."""
        by_id = {scene.id: scene for scene in scenes}
        absent = {name: one for name, one in self.scenes.items() if name not in by_id}
        same = [one for one in self.scenes.values() if one.scene in by_id]
        same = [one for one in same if by_id[one.scene].version_key() == one.version]
        asked = [(by_id[one.scene], one.band, one.chips[0], grid) for one in same]
        readable = in_order(_can_be_read, asked) if asked else ()
        left = {one.scene: one for one, can in zip(same, readable, strict=True) if not can}
        for one in self.scenes.values():
            if one.scene in by_id and one.scene not in left:
                log.info("scene %s can be read by now: it is used again", one.scene)
        return Aside(absent | left)

    def with_unread(self, unread: Mapping[str, Sequence[Unread]], scenes: Sequence[Scene]) -> Aside:
        """This and what a run found: by chip, the scenes that cannot be read there."""
        versions = {scene.id: scene.version_key() for scene in scenes}
        found = dict(self.scenes)
        for chip, several in unread.items():
            for one in several:
                old = found.get(one.scene)
                chips = (*(old.chips if old else ()), chip)
                if old is None:
                    found[one.scene] = SetAside(one.scene, versions[one.scene], one.band, one.why, chips, False)
                elif chip not in old.chips and not old.everywhere:
                    everywhere = len(chips) > _MANY
                    found[one.scene] = SetAside(old.scene, old.version, old.band, old.why, chips, everywhere)
        return Aside(found)

    def by_number(self, scenes: Sequence[Scene]) -> dict[int, Collection[tuple[int, int]] | None]:
        """For `rank_strip`: by the scene's number among these, row and column of the chips, None for all."""
        out: dict[int, Collection[tuple[int, int]] | None] = {}
        for number, scene in enumerate(scenes):
            one = self.scenes.get(scene.id)
            if one is not None:
                places = [PlaceName.parse(chip) for chip in one.chips]
                out[number] = None if one.everywhere else {(place.row, place.col) for place in places}
        return out


def _is_place(chip: str) -> bool:
    try:
        PlaceName.parse(chip)
    except ValueError:
        return False
    return True


def report(aside: Aside, scenes: Iterable[Scene]) -> None:
    """Say which of these scenes are set aside, in how many chips, and why."""
    for scene in scenes:
        one = aside.scenes.get(scene.id)
        if one is not None:
            where = "all chips" if one.everywhere else f"{len(one.chips)} chips"
            log.warning(
                "scene %s is set aside in %s, the next best is used: %s", one.scene, where, one.why,
                extra={"scene": one.scene, "chips": len(one.chips)},
            )  # fmt: skip


def _can_be_read(asked: tuple[Scene, str, str, Grid]) -> bool:
    """Whether a scene's band can be read in a chip's window."""
    scene, band, chip, grid = asked
    place = PlaceName.parse(chip)
    if band == MASK:  # making it says whether it can be made
        return True
    try:
        read_window(scene, band, grid.chip_window(ChipIndex(place.row, place.col)))
    except (ReadError, KeyError, AssertionError):
        return False
    return True
