"""What a reprocessing touches: exactly what differs, each chip and shard with a reason."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.plan.diff import Difference, compare, difference_rows
from difffusr.pipeline.plan.reasons import Reason
from difffusr.pipeline.plan.tables import Chips, Plan, Shards, StoredPlan
from difffusr.pipeline.scenes.item import Scene

CONFIG: dict[str, Any] = {
    "name": "month",
    "area": {"bbox": [6.0, 49.0, 7.0, 50.0]},
    "grid": {"chip_px": 192, "overlap_px": 24, "shard_px": 2048, "chunk_px": 256},
    "model": {"preset": "small", "seed": 0, "uncertainty_samples": 0, "temperature": None},
    "scenes": {"policy": "neighbours", "allow_cloudy": True},
}
Picks = Mapping[tuple[int, int], Sequence[str]]


def scene(name: str, baseline: str = "05.10", updated: str = "2024-07-01", acquisition: str | None = None) -> Scene:
    """A scene of the day that its acquisition's letter gives."""
    day = ord((acquisition or name)[0]) - ord("a") + 1
    return Scene(
        id=name, collection="c1", datetime=dt.datetime(2024, 6, day, 10, 30, 21, tzinfo=dt.UTC), tile="32ULV",
        epsg=32632, baseline=baseline, cloud_cover=12.0, provider="p", footprint=box(6, 49, 7, 50), assets={}, scl=None,
        product_uri=None, datatake=None, created=None, updated=updated, sequence=None,
    )  # fmt: skip


def plan(picks: Picks, scenes: Sequence[Scene], changes: Mapping[str, Any] | None = None, **manifest: Any) -> Plan:
    """A plan of chips at (row, col) with scenes by id; keys depend on what those of real plans depend on."""
    config = json.loads(json.dumps(CONFIG))
    for name, value in (changes or {}).items():
        section, key = name.split(".")
        config[section][key] = value
    used = sorted({name for chosen in picks.values() for name in chosen})
    known = {one.id: one for one in scenes}
    common = [manifest.get("model", "weights"), manifest.get("algorithm", 1), config["model"]["seed"]]
    common += [config["model"]["uncertainty_samples"], config["scenes"]["allow_cloudy"], config["grid"]["chip_px"]]
    keys, table = [], np.full((len(picks), max(map(len, picks.values()))), -1, np.int32)
    for i, place in enumerate(sorted(picks)):
        table[i, : len(picks[place])] = [used.index(name) for name in picks[place]]
        content = json.dumps([common, place, [known[name].version_key() for name in picks[place]]])
        keys.append(hashlib.sha256(content.encode()).digest())
    row, col = np.array(sorted(picks), np.int32).T
    share = np.ones(len(picks), np.float32)
    zone = np.full(len(picks), 32632, np.int32)
    chips = Chips(
        zone, row, col, table, share, share, np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), tuple(used)
    )
    grid = Grid(**config["grid"])
    facts = {"config": config, "model": "weights", "algorithm": 1} | manifest
    return Plan(tuple(known[name] for name in used), chips, Shards.of(chips, grid), facts)


def stored(made: Plan) -> StoredPlan:
    """The plan as it comes back from disk."""
    rows = [
        {"id": s.id, "datetime": s.datetime.isoformat(), "tile": s.tile, "baseline": s.baseline,
         "version": s.version_key()}
        for s in made.scenes
    ]  # fmt: skip
    frame = gpd.GeoDataFrame(pd.DataFrame(rows), geometry=[s.footprint for s in made.scenes], crs="EPSG:4326")
    return StoredPlan(made.manifest, frame, made.chips, made.shards)


SCENES = [scene("a"), scene("b"), scene("c")]
BLOCK = {(row, col): ("a", "b") for row in range(-3000, -2980) for col in range(200, 220)}


def diff(new: Plan, old: Plan | None = None) -> Difference:
    return compare(stored(old or plan(BLOCK, SCENES)), new)


def test_the_same_plan_touches_nothing_and_says_so_in_one_row() -> None:
    found = diff(plan(BLOCK, SCENES))
    assert found.chips.touched == found.shards.touched == 0
    assert found.causes == {}
    assert not found.touched.any()
    (row,) = difference_rows(found)
    assert "none" in row[1]
    assert "400 chips" in row[1]


def test_a_new_scene_touches_the_chips_that_use_it_and_is_named() -> None:
    picks = BLOCK | {(-3000, 200): ("c", "a", "b"), (-2981, 219): ("a", "b", "c")}
    found = diff(plan(picks, SCENES))
    assert found.chips.changed == 2
    cause = found.causes[Reason.NEW_SCENE]
    assert (cause.chips, cause.chips_first, cause.scenes) == (2, 2, ("c",))
    assert Reason.ORDER not in found.causes
    assert cause.shards_first == found.shards.changed > 0


def test_a_replaced_baseline_says_so_whether_the_id_stays_or_not() -> None:
    for again in (scene("a", baseline="05.11"), scene("a1", baseline="05.11")):
        picks = {place: (again.id, "b") for place in BLOCK}
        found = diff(plan(picks, [*SCENES, again]))
        assert set(found.causes) == {Reason.BASELINE}
        assert found.causes[Reason.BASELINE].chips == 400
        assert found.causes[Reason.BASELINE].scenes == (f"{again.id} (05.10 → 05.11)",)


def test_an_updated_scene_of_the_same_baseline_is_a_new_version() -> None:
    found = diff(plan(BLOCK, [scene("a", updated="2024-08-01"), scene("b")]))
    assert {reason: cause.chips for reason, cause in found.causes.items()} == {Reason.VERSION: 400}


def test_another_order_and_a_lost_scene_are_told_apart() -> None:
    picks = BLOCK | {(-3000, 200): ("b", "a"), (-3000, 201): ("b",)}
    found = diff(plan(picks, SCENES))
    assert {reason: cause.chips for reason, cause in found.causes.items()} == {Reason.LOST_SCENE: 1, Reason.ORDER: 1}
    assert found.causes[Reason.LOST_SCENE].scenes == ("a",)


def test_a_chip_counts_under_each_of_its_reasons_and_once_as_primary() -> None:
    picks = {place: ("c", "a") for place in BLOCK}
    found = diff(plan(picks, SCENES, {"model.seed": 7}))
    assert {reason: cause.chips for reason, cause in found.causes.items()} == {
        Reason.SEED: 400, Reason.NEW_SCENE: 400, Reason.LOST_SCENE: 400
    }  # fmt: skip
    assert [cause.chips_first for cause in found.causes.values()] == [400, 0, 0]
    assert found.causes[Reason.SEED].settings == ("model.seed: 0 → 7",)


@pytest.mark.parametrize(
    ("changes", "manifest", "reason"),
    [
        ({"model.temperature": 0.5}, {"model": "other"}, Reason.MODEL),
        ({"model.seed": 1}, {}, Reason.SEED),
        ({"model.uncertainty_samples": 8}, {}, Reason.UNCERTAINTY),
        ({"scenes.allow_cloudy": False}, {}, Reason.CLOUDY),
        ({}, {"algorithm": 2}, Reason.ALGORITHM),
    ],
)
def test_what_all_chips_depend_on_is_the_primary_reason_of_all(
    changes: dict[str, Any], manifest: dict[str, Any], reason: Reason
) -> None:
    found = diff(plan(BLOCK, SCENES, changes, **manifest))
    assert found.chips.changed == 400
    assert set(found.causes) == {reason}
    assert found.causes[reason].chips_first == 400
    assert found.causes[reason].shards_first == found.shards.changed == found.shards.touched
    assert found.causes[reason].settings


def test_on_another_grid_every_chip_is_new() -> None:
    found = diff(plan(BLOCK, SCENES, {"grid.chip_px": 240}))
    assert (found.chips.added, found.chips.removed, found.chips.changed) == (400, 400, 0)
    assert set(found.causes) == {Reason.GRID}
    assert found.causes[Reason.GRID].settings == ("grid.chip_px: 192 → 240",)


def test_other_shards_need_no_new_chips() -> None:
    found = diff(plan(BLOCK, SCENES, {"grid.shard_px": 1024}))
    assert found.chips.touched == 0
    assert found.shards.unchanged == found.shards.changed == 0
    assert found.causes[Reason.GRID].shards_first == found.shards.added + found.shards.removed
    assert len(difference_rows(found)) > 1


def test_chips_come_with_the_area_or_with_coverage() -> None:
    more = BLOCK | {(-2979, 220): ("a", "b")}
    covered = diff(plan(more, SCENES))
    assert {reason: cause.chips for reason, cause in covered.causes.items()} == {Reason.COVERED: 1}
    wider = diff(plan(more, SCENES, {"area.bbox": [6, 49, 8, 50]}))
    assert {reason: cause.chips for reason, cause in wider.causes.items()} == {Reason.AREA: 1}
    fewer = diff(plan(BLOCK, SCENES), plan(more, SCENES))
    assert (fewer.chips.removed, set(fewer.causes)) == (1, {Reason.UNCOVERED})


def test_a_change_that_nothing_explains_is_owned_up_to() -> None:
    old, new = plan(BLOCK, SCENES), plan(BLOCK, SCENES)
    key = new.chips.key.copy()
    key[5] ^= 1
    found = diff(replace(new, chips=replace(new.chips, key=key)), old)
    assert found.causes[Reason.OTHER].chips == found.causes[Reason.OTHER].chips_first == 1


def test_at_most_five_scenes_are_named_and_the_rest_counted() -> None:
    many = [scene(name) for name in "cdefghij"]
    picks = {place: (("a", "b", many[place[1] % 8].id)) for place in BLOCK}
    cause = diff(plan(picks, [*SCENES, *many[1:]])).causes[Reason.NEW_SCENE]
    assert (len(cause.scenes), cause.more_scenes) == (5, 3)


picks_strategy = st.dictionaries(
    st.tuples(st.integers(-30, -20), st.integers(-3, 8)),
    st.permutations(["a", "b", "c", "d"]).flatmap(lambda order: st.integers(1, 4).map(lambda k: tuple(order[:k]))),
    min_size=1,
    max_size=30,
)
versions_strategy = st.fixed_dictionaries({name: st.sampled_from(["05.09", "05.10"]) for name in "abcd"})


@settings(max_examples=60, deadline=None)
@given(picks_strategy, picks_strategy, versions_strategy, versions_strategy, st.integers(0, 1))
def test_exactly_what_differs_is_touched_and_all_counts_add_up(
    old_picks: Picks, new_picks: Picks, old_versions: dict[str, str], new_versions: dict[str, str], seed: int
) -> None:
    old = plan(old_picks, [scene(*pair) for pair in old_versions.items()])
    new = plan(new_picks, [scene(*pair) for pair in new_versions.items()], {"model.seed": seed})
    found = compare(stored(old), new)
    before = {chip.name: chip.key for chip in old.chips}
    assert found.touched.tolist() == [before.get(chip.name) != chip.key for chip in new.chips]
    for fate, one, other in ((found.chips, old.chips, new.chips), (found.shards, old.shards, new.shards)):
        assert fate.unchanged + fate.changed + fate.added == len(other)
        assert fate.unchanged + fate.changed + fate.removed == len(one)
    causes = found.causes.values()
    assert sum(cause.chips_first for cause in causes) == found.chips.touched + found.chips.removed
    assert sum(cause.shards_first for cause in causes) == found.shards.touched + found.shards.removed
    assert all(cause.chips >= cause.chips_first for cause in causes)
    assert Reason.OTHER not in found.causes
    json.dumps(found.to_dict())
    again = compare(stored(new), new)
    assert again.chips.touched == again.chips.removed == again.shards.touched == 0
