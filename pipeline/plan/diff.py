"""What a new plan computes that an old one already did, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.ground.words import counted, share_words
from difffusr.pipeline.plan.marks import (
    NO_REASON,
    Mark,
    global_marks,
    place_marks,
    primary_of_shards,
    primary_reasons,
    scene_marks,
    unexplained,
)
from difffusr.pipeline.plan.matches import Fate, Match
from difffusr.pipeline.plan.reasons import Reason, changed_settings, named_settings
from difffusr.pipeline.plan.tables import Plan, StoredPlan

#: Scenes named with a cause.
_MOST_NAMED: Final = 5


@dataclass(frozen=True)
class Cause:
    """What one reason touches.

    Attributes:
        chips: chips that the reason applies to; one chip may have several reasons.
        chips_first, shards_first: chips and shards whose primary reason it is; over all reasons they add up to what is
            added, removed and changed.
        scenes: up to five of the scenes concerned, those with the most chips first.
        more_scenes: how many more there are.
        settings: settings that differ, as "model.seed: 0 → 1".
    """

    chips: int
    chips_first: int
    shards_first: int
    scenes: tuple[str, ...] = ()
    more_scenes: int = 0
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Difference:
    """How a new plan differs from an old one.

    Attributes:
        chips, shards: how many are unchanged, added, removed and changed.
        causes: by reason, most important first; only those that apply.
        settings: all differing settings of the sections that decide what is planned.
        touched: (n,) bool, the chips of the new plan to compute.
        shard_reasons: the primary reason of each shard of the new plan, None for one that stays.
    """

    chips: Fate
    shards: Fate
    causes: Mapping[Reason, Cause]
    settings: tuple[str, ...]
    touched: NDArray[np.bool_] = field(repr=False)
    shard_reasons: tuple[Reason | None, ...] = field(repr=False, default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "chips": vars(self.chips) | {"touched": self.chips.touched},
            "shards": vars(self.shards) | {"touched": self.shards.touched},
            "reasons": {
                reason.name.lower(): {"words": reason.words}
                | {key: list(value) if isinstance(value, tuple) else value for key, value in vars(cause).items()}
                for reason, cause in self.causes.items()
            },
            "settings": list(self.settings),
        }


def compare(old: StoredPlan, new: Plan | StoredPlan) -> Difference:
    """What a new plan touches, and why: chips and shards are matched by zone, row and column; content keys tell whether
    they change.

    On another grid the same row and column are other ground, so everything is new.
    """
    settings = changed_settings(old.manifest["config"], new.manifest["config"])
    same_lattice = not named_settings(settings, "grid.chip_px", "grid.overlap_px")
    chips = Match.of(old.chips, new.chips, same_lattice)
    shards = Match.of(old.shards, new.shards, same_lattice and not named_settings(settings, "grid.shard_px"))
    marks = [*global_marks(old, new, chips, settings), *scene_marks(old, new, chips), *place_marks(chips, settings)]
    marks.append(Mark(Reason.OTHER, unexplained(chips, marks)))
    first_new, first_old = primary_reasons(chips, marks)
    first_shard = primary_of_shards(old.shards, new.shards, shards, first_new, first_old)
    causes = {}
    for reason in Reason:
        about = [mark for mark in marks if mark.reason == reason]
        cause = Cause(
            chips=sum(len(mark.new) + len(mark.old) for mark in about),
            chips_first=int((first_new == reason).sum() + (first_old == reason).sum()),
            shards_first=int((first_shard == reason).sum()),
            scenes=tuple(name for mark in about for name in mark.scenes[:_MOST_NAMED]),
            more_scenes=sum(max(0, len(mark.scenes) - _MOST_NAMED) for mark in about),
            settings=tuple(text for mark in about for text in mark.settings),
        )
        if cause.chips or cause.chips_first or cause.shards_first:
            causes[reason] = cause
    of_shards = tuple(
        None if reason == NO_REASON else Reason(reason) for reason in first_shard[: len(new.shards)].tolist()
    )
    return Difference(chips.fate(), shards.fate(), causes, settings, chips.touched(), of_shards)


def difference_rows(difference: Difference) -> list[tuple[str, str]]:
    """Labels and values for a table; one row if nothing changes."""
    chips, shards = difference.chips, difference.shards
    if not (chips.touched or chips.removed or shards.touched or shards.removed):
        return [("changes", f"none: all {chips.unchanged:,} chips and {shards.unchanged:,} shards stay as they are")]
    rows = [("chips to compute", _summary(chips)), ("shards to write", _summary(shards))]
    for reason, cause in difference.causes.items():
        value = f"{counted(cause.chips, 'chip')}, first cause of {cause.chips_first:,}"
        value += f" and of {counted(cause.shards_first, 'shard')}"
        details = [*cause.settings, *cause.scenes]
        details += [f"and {cause.more_scenes:,} more"] if cause.more_scenes else []
        rows.append((f"  {reason.words}", value + (f": {', '.join(details)}" if details else "")))
    rows += [("changed setting", text) for text in difference.settings]
    return rows


def _summary(fate: Fate) -> str:
    every = fate.touched + fate.unchanged
    share = share_words(fate.touched / max(every, 1))
    gone = f"; {fate.removed:,} no longer planned" if fate.removed else ""
    return f"{fate.touched:,} of {every:,} ({share}): {fate.changed:,} changed, {fate.added:,} new{gone}"
