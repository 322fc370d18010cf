"""What a plan would do again that an earlier one did, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.plan import Chips, Plan, Shards, StoredPlan

#: Scenes named with a reason.
_NAMED: Final = 5

#: Longest value shown of a setting, in characters.
_SHOWN: Final = 40


class Reason(IntEnum):
    """Why a chip or shard is touched. Where several apply, the first one here is the primary one."""

    GRID = 0
    ALGORITHM = 1
    MODEL = 2
    SEED = 3
    UNCERTAINTY = 4
    CLOUDY = 5
    SKIPPED = 6
    BASELINE = 7
    VERSION = 8
    NEW_SCENE = 9
    LOST_SCENE = 10
    ORDER = 11
    OTHER = 12
    AREA = 13
    COVERED = 14
    OUTSIDE = 15
    UNCOVERED = 16

    @property
    def words(self) -> str:
        """The reason as a reader meets it."""
        return _WORDS[self]


_WORDS: Final[Mapping[Reason, str]] = {
    Reason.GRID: "another grid",
    Reason.ALGORITHM: "new version of the algorithm",
    Reason.MODEL: "new weights or sampling",
    Reason.SEED: "another seed",
    Reason.UNCERTAINTY: "another number of uncertainty samples",
    Reason.CLOUDY: "clouds allowed or not",
    Reason.SKIPPED: "other chips spared the networks",
    Reason.BASELINE: "scene has a new processing baseline",
    Reason.VERSION: "scene has a new version",
    Reason.NEW_SCENE: "new scene used",
    Reason.LOST_SCENE: "scene no longer used (withdrawn or outranked)",
    Reason.ORDER: "scenes in another order",
    Reason.OTHER: "another cause",
    Reason.AREA: "new in the area",
    Reason.COVERED: "newly covered",
    Reason.OUTSIDE: "no longer in the area",
    Reason.UNCOVERED: "no longer covered",
}

#: Settings that every chip depends on, by the reason they are.
_SETTINGS: Final = {
    Reason.SEED: ("model.seed",),
    Reason.UNCERTAINTY: ("model.uncertainty_samples",),
    Reason.CLOUDY: ("scenes.allow_cloudy",),
    Reason.SKIPPED: ("skip.water", "skip.cloud"),
}

#: Sections of the configuration that decide what is planned; the others do not touch a pixel.
_SECTIONS: Final = ("area", "period", "source", "grid", "model", "scenes", "skip")


@dataclass(frozen=True)
class Fate:
    """How many chips, or shards, stay, come, go and change."""

    unchanged: int
    added: int
    removed: int
    changed: int

    @property
    def touched(self) -> int:
        """What is to be computed."""
        return self.added + self.changed


@dataclass(frozen=True)
class Cause:
    """One reason, and what it touches.

    Attributes:
        chips: chips that it applies to; one chip may have several reasons.
        chips_first, shards_first: chips and shards whose primary reason it is; over all reasons they add up to what is
            added, removed and changed.
        scenes: up to five scenes that it is about, those of the most chips first.
        more_scenes: how many further ones.
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
    """What a new plan does otherwise than an old one.

    Attributes:
        chips, shards: how many stay, come, go and change.
        causes: by reason, primary ones first; only those that apply.
        settings: everything in area, period, source, grid, model and scenes that is set otherwise.
        touched: (n,) bool, the chips of the new plan that are to be computed.
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
    """What a new plan touches, and why: chips and shards matched by zone, row and column, told apart by content keys.

    On another grid the same row and column are other ground: then everything is new.
    """
    settings = _changed_settings(old.manifest["config"], new.manifest["config"])
    same_lattice = not _named(settings, "grid.chip_px", "grid.overlap_px")
    chips = _Match.of(old.chips, new.chips, same_lattice)
    shards = _Match.of(old.shards, new.shards, same_lattice and not _named(settings, "grid.shard_px"))
    marks = [*_global_marks(old, new, chips, settings), *_scene_marks(old, new, chips), *_place_marks(chips, settings)]
    marks.append(_Mark(Reason.OTHER, _unexplained(chips, marks)))
    first_new, first_old = _primary(chips, marks)
    first_shard = _primary_of_shards(old.shards, new.shards, shards, first_new, first_old)
    causes = {}
    for reason in Reason:
        about = [mark for mark in marks if mark.reason == reason]
        cause = Cause(
            chips=sum(len(mark.new) + len(mark.old) for mark in about),
            chips_first=int((first_new == reason).sum() + (first_old == reason).sum()),
            shards_first=int((first_shard == reason).sum()),
            scenes=tuple(name for mark in about for name in mark.scenes[:_NAMED]),
            more_scenes=sum(max(0, len(mark.scenes) - _NAMED) for mark in about),
            settings=tuple(text for mark in about for text in mark.settings),
        )
        if cause.chips or cause.chips_first or cause.shards_first:
            causes[reason] = cause
    of_shards = tuple(None if reason == _NONE else Reason(reason) for reason in first_shard[: len(new.shards)].tolist())
    return Difference(chips.fate(), shards.fate(), causes, settings, chips.touched(), of_shards)


def difference_rows(difference: Difference) -> list[tuple[str, str]]:
    """Labels and values for a table; a single row where nothing changes."""
    chips, shards = difference.chips, difference.shards
    if not (chips.touched or chips.removed or shards.touched or shards.removed):
        return [("changes", f"none: all {chips.unchanged:,} chips and {shards.unchanged:,} shards stay as they are")]
    rows = [("chips to compute", _summary(chips)), ("shards to write", _summary(shards))]
    for reason, cause in difference.causes.items():
        value = f"{_plural(cause.chips, 'chip')}, first cause of {cause.chips_first:,}"
        value += f" and of {_plural(cause.shards_first, 'shard')}"
        details = [*cause.settings, *cause.scenes]
        details += [f"and {cause.more_scenes:,} more"] if cause.more_scenes else []
        rows.append((f"  {reason.words}", value + (f": {', '.join(details)}" if details else "")))
    rows += [("set otherwise", text) for text in difference.settings]
    return rows


def _summary(fate: Fate) -> str:
    every = fate.touched + fate.unchanged
    share = f"{fate.touched / max(every, 1):.1%}".replace("%", " %")
    gone = f"; {fate.removed:,} no longer planned" if fate.removed else ""
    return f"{fate.touched:,} of {every:,} ({share}): {fate.changed:,} changed, {fate.added:,} new{gone}"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------------------------------------------------------------
# Which
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Match:
    """Rows of an old and of a new table that mean the same place.

    Attributes:
        old, new: (k,) positions of each pair, ascending.
        changed: (k,) bool, whether the pair's content keys differ.
        old_rows, new_rows: lengths of the tables.
    """

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    changed: NDArray[np.bool_]
    old_rows: int
    new_rows: int

    @classmethod
    def of(cls, old: Chips | Shards, new: Chips | Shards, same_lattice: bool) -> _Match:
        if not same_lattice:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.zeros(0, bool), len(old), len(new))
        _, one, other = np.intersect1d(_places(old), _places(new), assume_unique=True, return_indices=True)
        changed = (old.key[one] != new.key[other]).any(axis=1)
        return cls(one, other, changed, len(old), len(new))

    def fate(self) -> Fate:
        changed = int(self.changed.sum())
        pairs = len(self.changed)
        return Fate(pairs - changed, self.new_rows - pairs, self.old_rows - pairs, changed)

    def added(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.new_rows), self.new, assume_unique=True)

    def removed(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.old_rows), self.old, assume_unique=True)

    def touched(self) -> NDArray[np.bool_]:
        """(new_rows,) bool: added or changed."""
        out = np.ones(self.new_rows, bool)
        out[self.new[~self.changed]] = False
        return out


def _places(table: Chips | Shards) -> NDArray[np.int64]:
    """Zone, row and column as one number: 15, 24 and 24 bits."""
    middle = 1 << 23
    row, col = table.row.astype(np.int64) + middle, table.col.astype(np.int64) + middle
    return (table.epsg.astype(np.int64) << 48) | (row << 24) | col


# ---------------------------------------------------------------------------------------------------------------------
# Why
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Mark:
    """A reason and the chips it applies to: positions in the new table, and in the old one of those that go."""

    reason: Reason
    new: NDArray[np.int64]
    old: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    scenes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def _global_marks(old: StoredPlan, new: Plan | StoredPlan, chips: _Match, settings: tuple[str, ...]) -> list[_Mark]:
    """What all chips depend on; of the chips that stay in place."""
    changed = chips.new[chips.changed]
    marks = []
    if old.manifest["algorithm"] != new.manifest["algorithm"]:
        versions = f"{old.manifest['algorithm']} → {new.manifest['algorithm']}"
        marks.append(_Mark(Reason.ALGORITHM, changed, settings=(versions,)))
    if old.manifest["model"] != new.manifest["model"]:
        own = {*_SETTINGS[Reason.SEED], *_SETTINGS[Reason.UNCERTAINTY]}
        how = tuple(text for text in settings if text.startswith("model.") and text.partition(":")[0] not in own)
        marks.append(_Mark(Reason.MODEL, changed, settings=how))
    for reason, keys in _SETTINGS.items():
        if named := _named(settings, *keys):
            marks.append(_Mark(reason, changed, settings=named))
    return marks


def _place_marks(chips: _Match, settings: tuple[str, ...]) -> list[_Mark]:
    """Why chips come and go."""
    added, removed = chips.added(), chips.removed()
    if grid := _named(settings, "grid.chip_px", "grid.overlap_px"):
        return [_Mark(Reason.GRID, added, removed, settings=grid)]
    area = tuple(text for text in settings if text.startswith("area."))
    come, go = (Reason.AREA, Reason.OUTSIDE) if area else (Reason.COVERED, Reason.UNCOVERED)
    nothing = np.zeros(0, np.int64)
    marks = [_Mark(come, added, settings=area), _Mark(go, nothing, removed, settings=area)]
    if shards := _named(settings, "grid.shard_px"):
        marks.append(_Mark(Reason.GRID, nothing, settings=shards))
    return marks


def _scene_marks(old: StoredPlan, new: Plan | StoredPlan, chips: _Match) -> list[_Mark]:
    """What became of the scenes of the chips that change; a scene is the same if its id is, or its acquisition."""
    before, after = _SceneFacts.of(old), _SceneFacts.of(new)
    code, replaced = _matched_scenes(before, after)
    here = chips.new[chips.changed]
    was = old.chips.scenes[chips.old[chips.changed]].astype(np.int64)
    now = new.chips.scenes[here].astype(np.int64)
    known = np.where(now >= 0, code[now], -2)
    place = _positions(known, was)
    kept = place >= 0
    lost = (was >= 0) & (_positions(was, known) < 0)
    kind = np.where(kept, replaced[now], -1)
    turned = np.zeros(now.shape, bool)
    turned[:, 1:] = kept[:, 1:] & (place[:, 1:] < np.maximum.accumulate(place, axis=1)[:, :-1])
    changes = [f"{name}{change}" for name, change in zip(after.ids, _changes(before, after, code), strict=True)]
    return [
        _Mark(Reason.BASELINE, *_about(here, kind == Reason.BASELINE, now, changes)),
        _Mark(Reason.VERSION, *_about(here, kind == Reason.VERSION, now, after.ids)),
        _Mark(Reason.NEW_SCENE, *_about(here, (now >= 0) & ~kept, now, after.ids)),
        _Mark(Reason.LOST_SCENE, *_about(here, lost, was, before.ids)),
        _Mark(Reason.ORDER, *_about(here, turned, now, after.ids)),
    ]


def _unexplained(chips: _Match, marks: Sequence[_Mark]) -> NDArray[np.int64]:
    """Chips that change for no reason known."""
    explained = np.zeros(chips.new_rows, bool)
    for mark in marks:
        explained[mark.new] = True
    changed = chips.new[chips.changed]
    return changed[~explained[changed]]


def _about(
    chips: NDArray[np.int64], mask: NDArray[np.bool_], scenes: NDArray[np.int64], names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Chips with anything in a (k, m) mask, none of the old ones, and the scenes it is about, most chips first."""
    counts = np.bincount(scenes[mask], minlength=len(names))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return chips[mask.any(axis=1)], np.zeros(0, np.int64), tuple(names[i] for i in order.tolist())


def _positions(values: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k, m) where in its row of (k, l) each value of (k, m) stands, −1 where nowhere."""
    out = np.full(values.shape, -1, np.int64)
    for column in range(rows.shape[1]):
        out[(values == rows[:, column, None]) & (values >= 0)] = column
    return out


@dataclass(frozen=True)
class _SceneFacts:
    """Of every scene of a plan: id, acquisition (tile and minute), processing baseline, version."""

    ids: tuple[str, ...]
    acquisitions: tuple[tuple[str, str], ...]
    baselines: tuple[str, ...]
    versions: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan | StoredPlan) -> _SceneFacts:
        if isinstance(plan, StoredPlan):
            names = ("tile", "datetime", "baseline", "version")
            tiles, times, baselines, versions = (plan.scenes[name].astype(str).tolist() for name in names)
        else:
            tiles = [scene.tile for scene in plan.scenes]
            times = [scene.datetime.isoformat() for scene in plan.scenes]
            baselines = [scene.baseline for scene in plan.scenes]
            versions = [scene.version_key() for scene in plan.scenes]
        minutes = [time[: len("2024-06-01T10:30")] for time in times]
        acquisitions = tuple(zip(tiles, minutes, strict=True))
        return cls(plan.chips.scene_ids, acquisitions, tuple(baselines), tuple(versions))


def _matched_scenes(before: _SceneFacts, after: _SceneFacts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each new scene the old one that it is or replaces, else a number beyond the old ones; and how it replaces it:
    BASELINE, VERSION, −1 not at all."""
    by_id = {name: i for i, name in enumerate(before.ids)}
    gone = set(before.ids) - set(after.ids)
    by_acquisition = {before.acquisitions[by_id[name]]: by_id[name] for name in gone}
    code = np.arange(len(after.ids), dtype=np.int64) + len(before.ids)
    replaced = np.full(len(after.ids), -1, np.int64)
    for i, name in enumerate(after.ids):
        # Each old scene is replaced by one new one at most.
        match = by_id[name] if name in by_id else by_acquisition.pop(after.acquisitions[i], None)
        if match is not None:
            code[i] = match
            if before.baselines[match] != after.baselines[i]:
                replaced[i] = Reason.BASELINE
            elif before.versions[match] != after.versions[i]:
                replaced[i] = Reason.VERSION
    return code, replaced


def _changes(before: _SceneFacts, after: _SceneFacts, code: NDArray[np.int64]) -> list[str]:
    """The baseline before and after, of scenes that had another."""
    pairs = zip(code.tolist(), after.baselines, strict=True)
    return [f" ({before.baselines[i]} → {now})" if i < len(before.ids) else "" for i, now in pairs]


# ---------------------------------------------------------------------------------------------------------------------
# Which reason comes first
# ---------------------------------------------------------------------------------------------------------------------

#: Stands for no reason; larger than all of them.
_NONE: Final = 99


def _primary(chips: _Match, marks: Sequence[_Mark]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The first reason of every new chip, and of every old one that goes; 99 for what stays."""
    new, old = np.full(chips.new_rows, _NONE, np.int8), np.full(chips.old_rows, _NONE, np.int8)
    for mark in sorted(marks, key=lambda mark: mark.reason, reverse=True):
        new[mark.new] = mark.reason
        old[mark.old] = mark.reason
    return new, old


def _primary_of_shards(
    old: Shards, new: Shards, shards: _Match, first_new: NDArray[np.int8], first_old: NDArray[np.int8]
) -> NDArray[np.int8]:
    """The first reason of every shard of the new plan, then of every one of the old; 99 for what stays."""
    of_new, of_old = _least(new, first_new), _least(old, first_old)
    of_new[shards.new] = np.minimum(of_new[shards.new], of_old[shards.old])
    touched = shards.touched()
    # Its chips stay as they are: it has another size.
    of_new[touched & (of_new == _NONE)] = Reason.GRID
    of_new[~touched] = _NONE
    going = np.zeros(len(old), bool)
    going[shards.removed()] = True
    of_old[going & (of_old == _NONE)] = Reason.GRID
    of_old[~going] = _NONE
    return np.concatenate([of_new, of_old])


def _least(shards: Shards, first: NDArray[np.int8]) -> NDArray[np.int8]:
    if not len(shards):
        return np.zeros(0, np.int8)
    return np.asarray(np.minimum.reduceat(first[shards.members], shards.first[:-1]))


# ---------------------------------------------------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------------------------------------------------


def _changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of the sections that decide what is planned, as "section.key: before → now"."""
    found: list[str] = []
    for section in _SECTIONS:
        before, now = old.get(section) or {}, new.get(section) or {}
        found += [
            f"{section}.{key}: {_short(before.get(key))} → {_short(now.get(key))}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
    return tuple(found)


def _named(settings: tuple[str, ...], *keys: str) -> tuple[str, ...]:
    return tuple(text for text in settings if text.partition(":")[0] in keys)


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
