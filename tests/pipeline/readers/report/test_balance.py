"""The report says what balance did, and compares the cube with scenes only as they were balanced for it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from balanced_scenes import balanced, balanced_plan, correction, with_balance
from drawn_plans import GRID, TWO_ZONES, plan
from reported_cubes import SCENES, Elements

from difffusr.pipeline.plan.balance import Balanced
from difffusr.pipeline.plan.files import write_plan
from difffusr.pipeline.plan.scene_balance import SceneBalance
from difffusr.pipeline.plan.tables import Plan
from difffusr.pipeline.readers.report.balance_facts import balance_of
from difffusr.pipeline.readers.report.balance_section import balance_section
from difffusr.pipeline.readers.report.facts import BalanceFacts
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.readers.report.reference import as_balanced
from difffusr.pipeline.readers.report.run_records import RunRecords
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.storage.objects import Storage

DAYS = date(2024, 6, 1), date(2024, 6, 30)


def records_of(made: Plan, folder: Path) -> RunRecords:
    """What a run of this plan leaves."""
    scenes = {"balance": "none" if made.balance is None else "full", "sun": "noon", "max_offset": 0.03}
    config = {**made.manifest["config"], "grid": vars(GRID), "scenes": scenes}
    storage = Storage(str(folder))
    write_plan(replace(made, manifest={**made.manifest, "config": config}), GRID, storage, "published")
    return RunRecords.of(storage, DAYS, ())


def of_catalogue(made: Plan) -> dict[str, Scene]:
    """The scenes as a catalogue gives them, without what was done to them."""
    return {scene.id: replace(scene, correction=None) for scene in made.scenes}


def compared(records: RunRecords, made: Plan) -> tuple[dict[str, Scene], list[str]]:
    assert records.plan is not None
    return as_balanced(of_catalogue(made), records.plan, records.balanced)


@pytest.mark.parametrize("kind", ["full", "nbar", "as measured"])
def test_scenes_are_compared_as_they_were_balanced(tmp_path: Path, kind: str) -> None:
    made = plan(TWO_ZONES) if kind == "as measured" else balanced_plan(TWO_ZONES, full=kind == "full")
    scenes, notes = compared(records_of(made, tmp_path), made)
    assert notes == []
    assert list(scenes) == [scene.id for scene in made.scenes]
    for scene in made.scenes:
        mine, own = scenes[scene.id].correction, scene.correction
        assert (mine is None) is (own is None)
        assert mine is None or own is None or mine.key() == own.key()


def lost(folder: Path, how: str) -> None:
    file = folder / "published" / "balance.parquet"
    if how == "deleted":
        file.unlink()
    elif how == "damaged":
        file.write_bytes(b"PAR1 and then nothing")
    elif how == "of another plan":
        other = balanced({"S000": correction(0.5), "S001": correction(0.5), "S002": correction(0.5)})
        file.write_bytes(other.to_parquet())
    elif how == "without one scene":
        whole = Balanced.from_parquet(file.read_bytes())
        kept = {name: one for name, one in whole.correction.items() if name != "S001"}
        file.write_bytes(replace(whole, correction=kept).to_parquet())


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("deleted", {"S003"}), ("damaged", {"S003"}), ("of another plan", {"S003"}),
        ("without one scene", {"S000", "S002", "S003"}),
    ],
)  # fmt: skip
def test_what_was_done_and_is_lost_is_said_and_nothing_is_compared(tmp_path: Path, how: str, left: set[str]) -> None:
    made = balanced_plan(TWO_ZONES)
    records_of(made, tmp_path)
    lost(tmp_path, how)
    records = RunRecords.of(Storage(str(tmp_path)), DAYS, ())
    scenes, notes = compared(records, made)
    assert set(scenes) == left
    number = 4 - len(left)
    assert notes == [
        f"The cube is made of balanced scenes, but what was done to {number} of 4 scenes is not kept beside the plan "
        "(balance.parquet); their chips are not compared."
    ]
    said = [note for note in records.notes if "balance" in note]
    assert len(said) == (how == "damaged")
    assert all("delete it, and plan again" in note for note in said)


def test_a_catalogue_with_fewer_scenes_gives_those(tmp_path: Path) -> None:
    made = balanced_plan(TWO_ZONES)
    records = records_of(made, tmp_path)
    some = {name: scene for name, scene in of_catalogue(made).items() if name != "S002"}
    assert records.plan is not None
    scenes, notes = as_balanced(some, records.plan, records.balanced)
    assert (set(scenes), notes) == ({"S000", "S001", "S003"}, [])


def section(facts: BalanceFacts | None) -> str:
    return re.sub(r"<[^>]+>", " ", balance_section(facts))


def facts_of(done: SceneBalance | None, used: tuple[str, ...] = ("S001", "S002")) -> BalanceFacts | None:
    return None if done is None else BalanceFacts("scene", 0.04, done, frozenset(used))


def test_what_was_done_to_whom_is_told() -> None:
    done = balanced_plan(TWO_ZONES).balance
    assert done is not None
    told = section(facts_of(SceneBalance.of_all(done)))
    assert "3 scenes brought to a view from above, the sun where it stood: 3 by the angles of their granules." in told
    assert re.search(r"B02\s+−0\.0500\s+−0\.0040\s+\+0\.0080\s+0\.981 – 1\.021\s+0\.0080\s+0\.0020", told)
    moved = re.findall(r"(S00\d)\s+(\S+) in B02", told)
    assert moved == [("S000", "−0.0500"), ("S002", "+0.0080"), ("S001", "−0.0040")]
    assert re.search(r"S000.*?hazy, not used.*S002.*?used", told, re.S)
    assert "Hazy: 1 scene moved by more than 0.04 in some band" in told
    assert "(0 used): S000." in told


@pytest.mark.parametrize("kind", ["nbar", "none balanced"])
def test_where_nothing_was_moved_factors_are_told(kind: str) -> None:
    nothing = kind == "none balanced"
    made = with_balance(plan(TWO_ZONES), balanced({})) if nothing else balanced_plan(TWO_ZONES, full=False)
    told = section(facts_of(SceneBalance.of(made)))
    assert "moved most" not in told
    assert "apart before" not in told
    assert "nan" not in told
    if kind == "none balanced":
        assert "0 scenes brought to a view from above" in told
        assert "3 scenes could not be balanced" in told
    else:
        assert re.search(r"B08\s+0\.9500\s+0\.9700\s+1\.0200", told)
        assert "factors, 0.950 … 1.050" in told


def test_of_many_scenes_the_ten_moved_most_are_listed_and_names_stay_text() -> None:
    names = [f"<b>scene</b> {i:03d}" for i in range(500)]
    done = balanced(
        {name: correction(1.01, hazy=i % 7 == 0) for i, name in enumerate(names)},
        {n: float(i) for i, n in enumerate(names)},
    )
    page = balance_section(facts_of(SceneBalance.of_all(done)))
    assert "<b>" not in page
    listed = re.findall(r"scene&lt;/b&gt; (\d\d\d)</th>", page)
    assert listed == [f"{i}" for i in range(499, 489, -1)]
    assert "And 42 more hazy scenes." in page
    assert len(page) < 20_000


def test_of_scenes_as_they_were_measured_there_is_no_section(told) -> None:
    assert balance_section(None) == ""
    assert "Balance between scenes" not in to_page(told)


def test_a_page_with_balance_has_it_once_and_without_scripts(told) -> None:
    done = facts_of(SceneBalance.of_all(balanced({"S1": correction(1.01)}, {"S1": -5})))
    page = to_page(replace(told, periods=(replace(told.periods[0], balance=done),)))
    assert page.count("Balance between scenes") == 1
    strips = [at for at in Elements(page).named("svg") if at.get("class") == "strip"]
    assert len(strips) == 12
    assert all("style" not in at for at in strips)  # the page's policy refuses it


@pytest.mark.parametrize("source", ["plan", "plan without balance.parquet", "cube"])
def test_figures_come_from_the_plan_or_from_the_cube(cube, told, tmp_path: Path, source: str) -> None:
    made = balanced_plan(TWO_ZONES)
    records = records_of(made, tmp_path)
    if source == "cube":
        records = replace(records, plan=None, balanced=None)
        scenes = {n: {**SCENES[n - 1], "balance": correction(1.02).to_json()} for n in (1, 2)}
        scenes[3] = {"id": "of another period", "balance": correction(1.3).to_json()}
        cube = _Changed(cube, scenes)
    elif source != "plan":
        records = replace(records, balanced=None)
    found = balance_of(cube, records, told.periods[0].survey)
    assert found is not None
    if source == "cube":
        assert (len(found.scenes), found.sun, found.max_offset) == (2, "scene", 0.04)
        np.testing.assert_allclose(found.scenes.gain[:, 0], 1.02)
    else:
        assert len(found.scenes) == (3 if source == "plan" else 4)
        assert (found.sun, found.max_offset) == ("noon", 0.03)
        assert found.used == {"S000", "S001", "S002", "S003"}


def test_a_plan_without_balance_has_nothing_to_tell(cube, told, tmp_path: Path) -> None:
    records = records_of(plan(TWO_ZONES), tmp_path)
    assert balance_of(cube, records, told.periods[0].survey) is None
    assert balance_of(cube, replace(records, plan=None), told.periods[0].survey) is None


class _Changed:
    """A cube with other scenes."""

    def __init__(self, cube: object, scenes: dict[int, dict[str, object]]) -> None:
        self.made_with, self.scenes = cube.made_with, scenes  # type: ignore[attr-defined]
