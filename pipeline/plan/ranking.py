"""Rank the scenes of each chip of a strip, best first."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.config import ScenesSection
from difffusr.pipeline.plan.borders import NEVER, choose_dates
from difffusr.pipeline.plan.looks import Cells, Look, size_of
from difffusr.pipeline.scenes import Scene, order_in_acquisition

#: Cost of a chip with nothing clear (1000 steps of share, 64 apart), and the steps in between for breaking ties.
_COST, _TIES = 64_000, 63


@dataclass(frozen=True)
class Candidates:
    """What ranking needs to know about the scenes, by scene number.

    Attributes:
        label: (n,) int32 acquisition; all scenes of one pass of one satellite have the same label.
        rank: (n,) int64 preference among scenes that show the same; higher is better.
        order: (n,) int32 place among the products of one acquisition and tile, 0 for the best.
        by_time: whether the policy ranks by time only (newest, closest to a date).
        labels: number of labels.
    """

    label: NDArray[np.int32]
    rank: NDArray[np.int64]
    order: NDArray[np.int32]
    by_time: bool
    labels: int

    @classmethod
    def of(cls, scenes: Sequence[Scene], policy: str) -> Candidates:
        """`neighbours` and `clearest` prefer less cloud, then newer scenes; `newest` and `closest_to(2023-07-15)`
        rank by time."""
        names = [scene.acquisition for scene in scenes]
        labels = {name: number for number, name in enumerate(sorted(set(names)))}
        by_time = policy not in ("neighbours", "clearest")
        order = sorted(range(len(scenes)), key=lambda number: _preference(scenes[number], policy))
        rank = np.empty(len(scenes), np.int64)
        rank[order] = np.arange(len(scenes))
        place = np.array(order_in_acquisition(scenes), np.int32)
        return cls(np.array([labels[name] for name in names], np.int32), rank, place, by_time, len(labels))


def _preference(scene: Scene, policy: str) -> tuple[float, float, str]:
    time = scene.datetime.timestamp()
    if policy == "newest":
        return time, 0.0, scene.id
    if match := re.fullmatch(r"closest_to\((.+)\)", policy):
        noon = dt.datetime.combine(dt.date.fromisoformat(match[1]), dt.time(12), dt.UTC)
        return -abs(time - noon.timestamp()), time, scene.id
    return -scene.cloud_cover, time, scene.id


@dataclass(frozen=True, eq=False)
class Strip:
    """Consecutive rows of a zone's chips.

    Attributes:
        top: its first row.
        row, col: (n,) int64 the chips to plan, row by row.
        position: (rows, width) int32 number of the chip at a row and column counted from `top` and `left`, or −1.
        left: its first column.
    """

    top: int
    left: int
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    position: NDArray[np.int32]

    @classmethod
    def of(cls, top: int, rows: int, row: NDArray[np.int64], col: NDArray[np.int64]) -> Strip:
        """The strip of `rows` rows that starts at `top`, with chips at these places."""
        left = int(col.min())
        position = np.full((rows, int(col.max()) - left + 1), -1, np.int32)
        position[row - top, col - left] = np.arange(len(row))
        return cls(top, left, row, col, position)

    def find(self, look: Look) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
        """The chips of a look that lie in the strip: their numbers in the strip, and their positions in the look."""
        row, col = look.row - self.top, look.col - self.left
        inside = np.flatnonzero(
            (row >= 0) & (row < self.position.shape[0]) & (col >= 0) & (col < self.position.shape[1])
        )
        chip = self.position[row[inside], col[inside]]
        return chip[chip >= 0], inside[chip >= 0]

    def bottom_labels(self, ranked: Ranked) -> dict[int, int]:
        """The acquisition of each chip in the last row, by column."""
        last = ranked.row == self.top + self.position.shape[0] - 1
        return dict(zip(ranked.col[last].tolist(), ranked.label[last].tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Ranked:
    """Chips with their scenes.

    Attributes:
        row, col: (n,) int32.
        scenes: (n, m) int32 scene numbers, best first, −1 after the last; m is `max_scenes`, or `looks` of a composite.
        covered, clear: (n,) float32 share of cells that these scenes show, and show clear.
        label: (n,) int32 acquisition of the first scene, if every scene could be read.
    """

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    scenes: NDArray[np.int32]
    covered: NDArray[np.float32]
    clear: NDArray[np.float32]
    label: NDArray[np.int32]


def rank_strip(
    wishes: ScenesSection,
    cells: Cells,
    candidates: Candidates,
    strip: Strip,
    looks: Mapping[int, Look],
    above: Mapping[int, int] | None = None,
    aside: Mapping[int, Collection[tuple[int, int]] | None] | None = None,
) -> Ranked:
    """Rank the scenes of every chip of a strip.

    The policy chooses the first scene; each further one adds most to those before it, until the chip is clear enough,
    nothing is added, or there are `max_scenes`. A composite then gets more looks, up to `looks`: of the other scenes
    that show something clear, those that show most, of equal ones in the policy's order.

    Args:
        looks: what each scene shows, by its number.
        above: acquisition chosen for the row of chips above the strip, by column.
        aside: numbers of scenes that cannot be read, with the row and column of the chips in which they are not to be
            used, None for all. Other chips come out as without it; so does a chip that would have no scene left.

    Returns:
        the chips with enough usable pixels; the others are left out.
    """
    views = _gather(cells, candidates, strip, looks)
    label = None
    if wishes.policy == "neighbours" and views.scene.size:
        label = _agreed(wishes, cells, candidates, strip, views, above or {})
    ranked = _fill(wishes, cells, candidates, strip, views, label)
    if not aside or not set(aside).intersection(looks):
        return ranked
    readable = {number: _without(look, aside[number]) if number in aside else look for number, look in looks.items()}
    left = _fill(wishes, cells, candidates, strip, _gather(cells, candidates, strip, readable), label)
    return _instead(ranked, left)


def _without(look: Look, chips: Collection[tuple[int, int]] | None) -> Look:
    """A look without some chips, None for without any."""
    places = zip(look.row.tolist(), look.col.tolist(), strict=True)
    kept = np.array([chips is not None and place not in chips for place in places], bool)
    return replace(look, row=look.row[kept], col=look.col[kept], valid=look.valid[kept], clear=look.clear[kept])


def _instead(ranked: Ranked, other: Ranked) -> Ranked:
    """Chips ranked, with the rows of another ranking where that has them."""
    there = {place: i for i, place in enumerate(zip(other.row.tolist(), other.col.tolist(), strict=True))}
    places = [there.get(place, -1) for place in zip(ranked.row.tolist(), ranked.col.tolist(), strict=True)]
    source = np.array(places, np.int64)
    found = source >= 0
    columns = {}
    for name in ("scenes", "covered", "clear"):
        columns[name] = getattr(ranked, name).copy()
        columns[name][found] = getattr(other, name)[source[found]]
    return replace(ranked, **columns)


@dataclass(frozen=True, eq=False)
class _Views:
    """What the scenes show of each chip; every chip has as many slots as the one with the most scenes.

    Attributes:
        scene: (n, k) int32 number of the scene in a slot, −1 for none.
        valid, clear: (n, k, words) uint64 sets of cells.
    """

    scene: NDArray[np.int32]
    valid: NDArray[np.uint64]
    clear: NDArray[np.uint64]


def _gather(cells: Cells, candidates: Candidates, strip: Strip, looks: Mapping[int, Look]) -> _Views:
    chip_parts, scene_parts, valid_parts, clear_parts = [], [], [], []
    for number, look in sorted(looks.items()):
        chip, place = strip.find(look)
        chip_parts.append(chip)
        scene_parts.append(np.full(len(chip), number, np.int32))
        valid_parts.append(look.valid[place])
        clear_parts.append(look.clear[place])
    if not sum(map(len, chip_parts)):
        empty = np.zeros((len(strip.row), 0, cells.words), np.uint64)
        return _Views(np.zeros((len(strip.row), 0), np.int32), empty, empty)
    chip, scene = np.concatenate(chip_parts), np.concatenate(scene_parts)
    valid, clear = np.concatenate(valid_parts), np.concatenate(clear_parts)
    # Tiles of one pass show the same ground alike: those that add nothing to the fullest one are dropped. So are
    # products of one acquisition that add nothing to a better one.
    order = np.lexsort((scene, candidates.order[scene], -size_of(valid), candidates.label[scene], chip))
    chip, scene, valid, clear = chip[order], scene[order], valid[order], clear[order]
    label = candidates.label[scene]
    begins = np.ones(len(chip), bool)
    begins[1:] = (chip[1:] != chip[:-1]) | (label[1:] != label[:-1])
    fullest = np.flatnonzero(begins)[np.cumsum(begins) - 1]
    keep = begins | (valid & ~valid[fullest]).any(axis=1)
    chip, scene, valid, clear = chip[keep], scene[keep], valid[keep], clear[keep]
    slot = np.arange(len(chip)) - np.searchsorted(chip, chip)
    shape = len(strip.row), int(slot.max()) + 1
    views = _Views(np.full(shape, -1, np.int32), *(np.zeros((*shape, cells.words), np.uint64) for _ in range(2)))
    views.scene[chip, slot], views.valid[chip, slot], views.clear[chip, slot] = scene, valid, clear
    return views


def _agreed(
    wishes: ScenesSection, cells: Cells, candidates: Candidates, strip: Strip, views: _Views, above: Mapping[int, int]
) -> NDArray[np.int64]:
    """(n,) acquisition of each chip's first scene, chosen in agreement with its neighbours; −1 for none."""
    here = np.unique(candidates.label[views.scene[views.scene >= 0]])
    rank = np.zeros(candidates.labels, np.int64)
    np.maximum.at(rank, candidates.label, candidates.rank)
    ties = (np.argsort(np.argsort(-rank[here])) * _TIES // max(len(here) - 1, 1)).astype(np.int32)
    known = views.scene >= 0
    slot_label = np.searchsorted(here, candidates.label[views.scene])
    unclear = cells.count - size_of(views.clear)
    price = np.where(known, unclear * _COST // cells.count // 64 * 64 + ties[slot_label * known], NEVER)
    border = round(wishes.border_cost * _COST)
    # A date that costs more than the best one plus four borders can never win.
    price[price > price.min(axis=1, keepdims=True) + 4 * border + 64] = NEVER
    useful = np.unique(slot_label[price < NEVER])
    cost = np.full((len(useful), *strip.position.shape), NEVER, np.int32)
    chip, slot = np.nonzero(price < NEVER)
    place = np.searchsorted(useful, slot_label[chip, slot]), strip.row[chip] - strip.top, strip.col[chip] - strip.left
    np.minimum.at(cost, place, price[chip, slot].astype(np.int32))
    dates = choose_dates(cost, border, _settled(here[useful], strip, above))
    chosen = dates[strip.row - strip.top, strip.col - strip.left]
    return np.where(chosen >= 0, here[useful[np.maximum(chosen, 0)]], -1)


def _slot_of(label: NDArray[np.int64], candidates: Candidates, views: _Views) -> NDArray[np.int64]:
    """(n,) slot of the fullest scene of an acquisition (n,) in each chip, −1 where it has none."""
    fits = (views.scene >= 0) & (candidates.label[views.scene] == label[:, None])
    merit = np.where(fits, size_of(views.clear) * 4096 + size_of(views.valid), -1)
    return np.where(fits.any(axis=1), merit.argmax(axis=1), -1)


def _settled(labels: NDArray[np.int32], strip: Strip, above: Mapping[int, int]) -> NDArray[np.int32]:
    """(width,) position in `labels` of what the row above has chosen; `len(labels)` for any other, −1 for no chip."""
    places = {int(label): number for number, label in enumerate(labels)}
    columns = range(strip.left, strip.left + strip.position.shape[1])
    row = [places.get(above[col], len(labels)) if col in above else -1 for col in columns]
    return np.array(row, np.int32)


def _fill(
    wishes: ScenesSection,
    cells: Cells,
    candidates: Candidates,
    strip: Strip,
    views: _Views,
    label: NDArray[np.int64] | None,
) -> Ranked:
    """`label`: (n,) acquisition of each chip's first scene, −1 for any; None if the policy does not choose one."""
    first = None if label is None or not views.scene.size else _slot_of(label, candidates, views)
    count, slots = views.scene.shape
    limit = wishes.max_scenes if wishes.composite == "none" else wishes.looks
    chosen = np.full((count, limit), -1, np.int32)
    used = np.zeros((count, slots), bool)
    covered = np.zeros((count, cells.words), np.uint64)
    clear = covered.copy()
    open_chips = np.arange(count)
    for turn in range(limit if slots else 0):
        merit, gain = _merit(wishes, cells, candidates, views, open_chips, covered, clear)
        slot = merit.argmax(axis=1)
        if turn == 0 and first is not None:
            slot = np.where(first[open_chips] >= 0, first[open_chips], slot)
        picked = np.arange(len(open_chips))
        # The first scene is taken in any case: it may be all cloud, and the only one.
        worth = (gain[picked, slot] > 0) | ((turn == 0) & (views.scene[open_chips, slot] >= 0))
        open_chips, slot = open_chips[worth], slot[worth]
        chosen[open_chips, turn] = views.scene[open_chips, slot]
        used[open_chips, slot] = True
        covered[open_chips] |= views.valid[open_chips, slot]
        clear[open_chips] |= views.clear[open_chips, slot]
        open_chips = open_chips[size_of(clear[open_chips]) < wishes.fill_until * cells.count]
    if wishes.composite != "none" and slots:
        more = _further_looks(cells, candidates, views, chosen, used)
        covered |= np.bitwise_or.reduce(views.valid * more[..., None], axis=1)
        clear |= np.bitwise_or.reduce(views.clear * more[..., None], axis=1)
    shown, shown_clear = size_of(covered), size_of(clear)
    usable = (chosen[:, 0] >= 0) & ((shown > 0) if wishes.allow_cloudy else (shown_clear > 0))
    usable &= shown_clear >= wishes.min_clear_share * cells.count
    return Ranked(
        strip.row[usable].astype(np.int32),
        strip.col[usable].astype(np.int32),
        chosen[usable],
        (shown[usable] / cells.count).astype(np.float32),
        (shown_clear[usable] / cells.count).astype(np.float32),
        candidates.label[chosen[usable, 0]],
    )


def _further_looks(
    cells: Cells, candidates: Candidates, views: _Views, chosen: NDArray[np.int32], used: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Add looks to the chosen scenes (n, m), in place, as many as there is room for; returns (n, k) their slots.

    Args:
        used: (n, k) slots that are chosen already.
    """
    shown = size_of(views.clear).astype(np.int64)
    steps = (shown > 0).astype(np.int64) if candidates.by_time else shown * 100 // cells.count
    merit = np.where((shown > 0) & ~used, (steps << 48) + candidates.rank[views.scene], -1)
    order = np.argsort(-merit, axis=1, kind="stable")
    place = (chosen >= 0).sum(axis=1, keepdims=True) + np.arange(order.shape[1])
    chip, turn = np.nonzero((np.take_along_axis(merit, order, axis=1) >= 0) & (place < chosen.shape[1]))
    slot = order[chip, turn]
    chosen[chip, place[chip, turn]] = views.scene[chip, slot]
    more = np.zeros_like(used)
    more[chip, slot] = True
    return more


def _merit(
    wishes: ScenesSection,
    cells: Cells,
    candidates: Candidates,
    views: _Views,
    chips: NDArray[np.intp],
    covered: NDArray[np.uint64],
    clear: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each scene would add to those chosen: (n, k) merit to compare by, and (n, k) number of cells.

    Clear cells count first, then any cells if clouds are allowed, then the policy's order; in hundredths of a chip, so
    that a few cells do not decide. If the policy ranks by time, it only counts whether anything is added.
    """
    known = views.scene[chips] >= 0
    added_clear = size_of(views.clear[chips] & ~clear[chips][:, None]).astype(np.int64)
    added = size_of(views.valid[chips] & ~covered[chips][:, None]).astype(np.int64) * wishes.allow_cloudy
    rank = candidates.rank[views.scene[chips]]
    if candidates.by_time:
        steps, more = (added_clear > 0).astype(np.int64), (added > 0).astype(np.int64)
    else:
        steps, more = added_clear * 100 // cells.count, added * 100 // cells.count
    merit = (steps << 48) + (more << 40) + rank
    return np.where(known, merit, -1), np.where(known, added_clear + added, 0)
