"""What balance did is told the same of a plan, of the plan on disk, and of a cube's scene table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from balanced_scenes import balanced, balanced_plan, correction, with_balance
from drawn_plans import GRID, TWO_ZONES, plan, stored

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.plan.files import read_plan, write_plan
from difffusr.pipeline.plan.scene_balance import SHOWN_SHIFTS, SceneBalance, balance_facts
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.storage.objects import Storage

B02 = BANDS.index("B02")


def on_disk(made: Plan, folder: Path, name: str = "plan") -> SceneBalance | None:
    """Of the same plan, written and read."""
    config = {**made.manifest["config"], "grid": vars(GRID)}
    write_plan(replace(made, manifest={**made.manifest, "config": config}), GRID, Storage(str(folder)), name)
    return SceneBalance.of(read_plan(Storage(str(folder)), name))


@pytest.mark.parametrize("full", [True, False], ids=["full", "nbar"])
@pytest.mark.parametrize("name", ["plan", "published"])
def test_the_plan_on_disk_tells_the_same(tmp_path: Path, full: bool, name: str) -> None:
    made = balanced_plan(TWO_ZONES, full=full)
    told, kept = SceneBalance.of(made), on_disk(made, tmp_path, name)
    assert told is not None
    assert kept is not None
    assert (told.ids, told.angles) == (kept.ids, kept.angles)
    assert kept.angles == ("granule", "granule", "granule", "")
    for figure in ("gain", "shift", "before", "after", "hazy", "balanced"):
        np.testing.assert_array_equal(getattr(kept, figure), getattr(told, figure))
    np.testing.assert_allclose(kept.factor, told.factor, atol=1e-5)
    assert kept.moved is full


def test_figures_are_reflectance() -> None:
    told = SceneBalance.of(balanced_plan(TWO_ZONES))
    assert told is not None
    np.testing.assert_allclose(told.shift[:3, B02], [-0.05, -0.004, 0.008])
    np.testing.assert_allclose(told.before[0], 0.008)
    np.testing.assert_allclose(np.column_stack(told.difference())[:3], [[0.008, 0.002]] * 3)
    assert np.isnan(told.difference()[0][3])
    assert told.hazy.tolist() == [True, False, False, False]
    assert told.balanced.tolist() == [True, True, True, False]


@pytest.mark.parametrize("full", [True, False], ids=["full", "nbar"])
def test_a_cube_s_scene_table_tells_the_same(full: bool) -> None:
    made = balanced_plan(TWO_ZONES, full=full)
    facts = [{"id": scene.id, "balance": balance_facts(made, scene)} for scene in made.scenes]
    read = json.loads(json.dumps(facts, allow_nan=False))
    assert read[3]["balance"] == {}
    told, cube = SceneBalance.of(made), SceneBalance.of_cube(read)
    assert told is not None
    assert cube is not None
    assert cube.ids == told.ids[:3]
    for figure in ("gain", "shift", "before", "after", "hazy"):
        np.testing.assert_array_equal(getattr(cube, figure), getattr(told, figure)[:3])
    assert len(json.dumps(read)) < 3 * 1200


def test_a_cube_of_the_first_version_of_the_table_is_read() -> None:
    """It had the coefficients alone."""
    facts = [{"id": "one", "balance": correction(1.02, 12, hazy=True).to_json()}, {"id": "two"}]
    cube = SceneBalance.of_cube(facts)
    assert cube is not None
    assert (cube.ids, cube.hazy.tolist(), cube.angles) == (("one",), [True], ("",))
    assert np.isnan(cube.shift).all()
    assert cube.moved
    json.dumps(cube.to_json(), allow_nan=False)


@pytest.mark.parametrize("kind", ["plan", "stored", "cube", "no scenes"])
def test_of_scenes_as_they_were_measured_nothing_is_told(kind: str) -> None:
    made = plan(TWO_ZONES)
    told = {
        "plan": lambda: SceneBalance.of(made),
        "stored": lambda: SceneBalance.of(stored(made)),
        "cube": lambda: SceneBalance.of_cube([{"id": "one", "tile": "32ULV"}]),
        "no scenes": lambda: SceneBalance.of_cube([]),
    }[kind]()
    assert told is None
    assert balance_facts(made, made.scenes[0]) == {}


def test_where_no_scene_could_be_balanced_every_figure_is_unknown(tmp_path: Path) -> None:
    made = with_balance(plan(TWO_ZONES), balanced({}))
    for told in (SceneBalance.of(made), on_disk(made, tmp_path)):
        assert told is not None
        assert not told.balanced.any()
        assert not told.moved
        rows = told.to_json()
        assert {row["before"] for row in rows} == {None}
        json.dumps(rows, allow_nan=False)


def test_a_table_of_many_scenes_with_gaps_is_read() -> None:
    """As pandas gives lists: NaN where a row has none."""
    rows = pd.DataFrame([{"id": "a", "gain": [1.1] * 12, "hazy": True, "angles": "item"}, {"id": "b", "hazy": False}])
    told = SceneBalance.of_rows(rows.to_dict("records"))
    assert told.balanced.tolist() == [True, False]
    assert told.angles == ("item", "")
    assert told.to_json()[1]["gain"] == [None, None]


def test_all_that_were_balanced_are_told_also_those_that_no_chip_uses() -> None:
    done = balanced({"z": correction(hazy=True), "a": correction(1.01)}, {"z": 70, "a": -1})
    told = SceneBalance.of_all(done)
    assert told.ids == ("a", "z")
    np.testing.assert_allclose(told.shift[:, B02], [-0.001, 0.07])
    assert told.hazy.tolist() == [False, True]


def test_json_has_the_bands_that_tables_show() -> None:
    rows = SceneBalance.of_all(balanced({"a": correction(1.01, factor=0.9)}, {"a": 3})).to_json()
    assert set(rows[0]["shift"]) == set(SHOWN_SHIFTS)
    assert rows[0]["shift"]["B02"] == 0.003
    assert rows[0]["gain"] == [1.01, 1.0211]
    assert rows[0]["factor"] == [0.9, 0.9]
    assert (rows[0]["before"], rows[0]["after"]) == (0.008, 0.002)
