"""Which chips each reason applies to, and which reason is the primary one of a chip or shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.plan.matches import Match
from difffusr.pipeline.plan.reasons import Reason, named_settings
from difffusr.pipeline.plan.tables import Plan, Shards, StoredPlan

#: Settings that every chip depends on, by reason.
_SETTINGS: Final = {
    Reason.SEED: ("model.seed",),
    Reason.UNCERTAINTY: ("model.uncertainty_samples",),
    Reason.CLOUDY: ("scenes.allow_cloudy",),
    Reason.RULES: tuple(
        f"scenes.{key}"
        for key in (
            "balance",
            "sun",
            "max_offset",
            "masks",
            "max_cloud_probability",
            "dilate_cloud_m",
            "dilate_shadow_m",
            "composite",
            "looks",
            "blend",
        )
    ),
    Reason.SKIPPED: ("skip.water", "skip.cloud"),
}

#: Stands for no reason; larger than all of them.
NO_REASON: Final = 99


@dataclass(frozen=True, eq=False)
class Mark:
    """A reason and the chips it applies to: positions in the new table and, of removed chips, in the old one."""

    reason: Reason
    new: NDArray[np.int64]
    old: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    scenes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def global_marks(old: StoredPlan, new: Plan | StoredPlan, chips: Match, settings: tuple[str, ...]) -> list[Mark]:
    """Reasons that apply to all chips that stay in place: algorithm, model, settings."""
    changed = chips.new[chips.changed]
    marks = []
    if old.manifest["algorithm"] != new.manifest["algorithm"]:
        versions = f"{old.manifest['algorithm']} → {new.manifest['algorithm']}"
        marks.append(Mark(Reason.ALGORITHM, changed, settings=(versions,)))
    if old.manifest["model"] != new.manifest["model"]:
        own = {*_SETTINGS[Reason.SEED], *_SETTINGS[Reason.UNCERTAINTY]}
        how = tuple(text for text in settings if text.startswith("model.") and text.partition(":")[0] not in own)
        marks.append(Mark(Reason.MODEL, changed, settings=how))
    for reason, keys in _SETTINGS.items():
        if named := named_settings(settings, *keys):
            marks.append(Mark(reason, changed, settings=named))
    return marks


def place_marks(chips: Match, settings: tuple[str, ...]) -> list[Mark]:
    """Why chips are added and removed."""
    added, removed = chips.added(), chips.removed()
    if grid := named_settings(settings, "grid.chip_px", "grid.overlap_px"):
        return [Mark(Reason.GRID, added, removed, settings=grid)]
    area = tuple(text for text in settings if text.startswith("area."))
    come, go = (Reason.AREA, Reason.OUTSIDE) if area else (Reason.COVERED, Reason.UNCOVERED)
    nothing = np.zeros(0, np.int64)
    marks = [Mark(come, added, settings=area), Mark(go, nothing, removed, settings=area)]
    if shards := named_settings(settings, "grid.shard_px"):
        marks.append(Mark(Reason.GRID, nothing, settings=shards))
    return marks


def scene_marks(old: StoredPlan, new: Plan | StoredPlan, chips: Match) -> list[Mark]:
    """What happened to the scenes of changed chips. Scenes are the same if their id or their acquisition is."""
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
        Mark(Reason.BASELINE, *_about(here, kind == Reason.BASELINE, now, changes)),
        Mark(Reason.VERSION, *_about(here, kind == Reason.VERSION, now, after.ids)),
        Mark(Reason.NEW_SCENE, *_about(here, (now >= 0) & ~kept, now, after.ids)),
        Mark(Reason.LOST_SCENE, *_about(here, lost, was, before.ids)),
        Mark(Reason.ORDER, *_about(here, turned, now, after.ids)),
        Mark(Reason.BALANCE, *_about(here, kept & _balanced_anew(before, after, code)[now], now, after.ids)),
    ]


def _balanced_anew(before: _SceneFacts, after: _SceneFacts, code: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(scenes,) whether another correction is applied to a scene than before."""
    pairs = zip(code.tolist(), after.corrections, strict=True)
    return np.array([i < len(before.ids) and before.corrections[i] != now for i, now in pairs], bool)


def unexplained(chips: Match, marks: Sequence[Mark]) -> NDArray[np.int64]:
    """Chips that change for no known reason."""
    explained = np.zeros(chips.new_rows, bool)
    for mark in marks:
        explained[mark.new] = True
    changed = chips.new[chips.changed]
    return changed[~explained[changed]]


def primary_reasons(chips: Match, marks: Sequence[Mark]) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The primary reason of every new chip and of every removed old one; `NO_REASON` for what stays."""
    new, old = np.full(chips.new_rows, NO_REASON, np.int8), np.full(chips.old_rows, NO_REASON, np.int8)
    for mark in sorted(marks, key=lambda mark: mark.reason, reverse=True):
        new[mark.new] = mark.reason
        old[mark.old] = mark.reason
    return new, old


def primary_of_shards(
    old: Shards, new: Shards, shards: Match, first_new: NDArray[np.int8], first_old: NDArray[np.int8]
) -> NDArray[np.int8]:
    """The primary reason of every shard of the new plan, then of every one of the old; `NO_REASON` for what stays."""
    of_new, of_old = _least(new, first_new), _least(old, first_old)
    of_new[shards.new] = np.minimum(of_new[shards.new], of_old[shards.old])
    touched = shards.touched()
    # Its chips stay as they are, so its size changed.
    of_new[touched & (of_new == NO_REASON)] = Reason.GRID
    of_new[~touched] = NO_REASON
    going = np.zeros(len(old), bool)
    going[shards.removed()] = True
    of_old[going & (of_old == NO_REASON)] = Reason.GRID
    of_old[~going] = NO_REASON
    return np.concatenate([of_new, of_old])


def _least(shards: Shards, first: NDArray[np.int8]) -> NDArray[np.int8]:
    if not len(shards):
        return np.zeros(0, np.int8)
    return np.asarray(np.minimum.reduceat(first[shards.members], shards.first[:-1]))


def _about(
    chips: NDArray[np.int64], mask: NDArray[np.bool_], scenes: NDArray[np.int64], names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """For a `Mark`: chips with anything in a (k, m) mask, no old ones, and the scenes concerned, most chips first."""
    counts = np.bincount(scenes[mask], minlength=len(names))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    return chips[mask.any(axis=1)], np.zeros(0, np.int64), tuple(names[i] for i in order.tolist())


def _positions(values: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k, m) position of each value of (k, m) in its row of (k, l), −1 where it is not in it."""
    out = np.full(values.shape, -1, np.int64)
    for column in range(rows.shape[1]):
        out[(values == rows[:, column, None]) & (values >= 0)] = column
    return out


@dataclass(frozen=True)
class _SceneFacts:
    """Id, acquisition (tile and minute), processing baseline, version and correction of every scene of a plan."""

    ids: tuple[str, ...]
    acquisitions: tuple[tuple[str, str], ...]
    baselines: tuple[str, ...]
    versions: tuple[str, ...]
    corrections: tuple[str, ...]

    @classmethod
    def of(cls, plan: Plan | StoredPlan) -> _SceneFacts:
        if isinstance(plan, StoredPlan):
            names = ("tile", "datetime", "baseline", "version")
            tiles, times, baselines, versions = (plan.scenes[name].astype(str).tolist() for name in names)
            there = "correction" in plan.scenes
            corrections = plan.scenes["correction"].astype(str).tolist() if there else [""] * len(tiles)
        else:
            tiles = [scene.tile for scene in plan.scenes]
            times = [scene.datetime.isoformat() for scene in plan.scenes]
            baselines = [scene.baseline for scene in plan.scenes]
            versions = [scene.version_key() for scene in plan.scenes]
            corrections = ["" if scene.correction is None else scene.correction.key() for scene in plan.scenes]
        minutes = [time[: len("2024-06-01T10:30")] for time in times]
        acquisitions = tuple(zip(tiles, minutes, strict=True))
        return cls(plan.chips.scene_ids, acquisitions, tuple(baselines), tuple(versions), tuple(corrections))


def _matched_scenes(before: _SceneFacts, after: _SceneFacts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each new scene the old one that it is or replaces, else a number beyond the old ones; and how it replaces it:
    BASELINE, VERSION or −1 for not at all."""
    by_id = {name: i for i, name in enumerate(before.ids)}
    gone = set(before.ids) - set(after.ids)
    by_acquisition = {before.acquisitions[by_id[name]]: by_id[name] for name in gone}
    code = np.arange(len(after.ids), dtype=np.int64) + len(before.ids)
    replaced = np.full(len(after.ids), -1, np.int64)
    for i, name in enumerate(after.ids):
        # At most one new scene replaces an old one.
        match = by_id[name] if name in by_id else by_acquisition.pop(after.acquisitions[i], None)
        if match is not None:
            code[i] = match
            if before.baselines[match] != after.baselines[i]:
                replaced[i] = Reason.BASELINE
            elif before.versions[match] != after.versions[i]:
                replaced[i] = Reason.VERSION
    return code, replaced


def _changes(before: _SceneFacts, after: _SceneFacts, code: NDArray[np.int64]) -> list[str]:
    """The baseline before and after, of scenes that replace another."""
    pairs = zip(code.tolist(), after.baselines, strict=True)
    return [f" ({before.baselines[i]} → {now})" if i < len(before.ids) else "" for i, now in pairs]
