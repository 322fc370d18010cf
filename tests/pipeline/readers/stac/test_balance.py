"""An item says how its scenes were balanced, by what, and stays small."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
from balanced_scenes import balanced, balanced_plan, correction, with_balance
from drawn_plans import TWO_ZONES, plan
from small_cubes import GRID, finish, label, month, write

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import PixelWindow, ShardIndex
from difffusr.pipeline.plan.scene_balance import balance_facts
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.readers.stac import write_records
from difffusr.pipeline.readers.stac.balance import balance_lineage, balance_property
from difffusr.pipeline.storage.objects import Storage

EPSG, WINDOW = 32648, PixelWindow(-720_000, 200_000, 128, 128)


def facts_of(kind: str, scenes: int = 4) -> list[dict[str, Any]]:
    """Scenes of a cube's table, balanced somehow."""
    if kind == "none":
        made = plan(TWO_ZONES, dates=scenes)
    elif scenes == 4:
        made = balanced_plan(TWO_ZONES, full=kind == "full")
    else:
        drawn = plan(TWO_ZONES, dates=scenes)
        names = [scene.id for scene in drawn.scenes]
        done = {name: correction(1.01, 12.3, 45.6, 0.97, 0.01) for name in names}
        made = with_balance(drawn, balanced(done, dict.fromkeys(names, -12.34)))
    return [
        {"id": scene.id, "tile": "48PWC", "collection": "l2a", "datetime": "2023-01-10T03:00:00Z"}
        | ({"balance": told} if (told := balance_facts(made, scene)) else {})
        for scene in made.scenes
    ]


def made_with(**scenes: Any) -> dict[str, Any]:
    return {"config": {"scenes": scenes}}


@pytest.mark.parametrize(
    ("wished", "scenes", "expected"),
    [
        ({"balance": "full"}, "full", {"method": "full", "sun": "scene", "max_offset": 0.04}),
        (
            {"balance": "full", "sun": "noon", "max_offset": 0.1},
            "full",
            {"method": "full", "sun": "noon", "max_offset": 0.1},
        ),
        ({"balance": "nbar", "sun": "noon"}, "nbar", {"method": "nbar", "sun": "noon"}),
        ({"balance": "full"}, "nbar", {"method": "full", "sun": "scene", "max_offset": 0.04}),  # nothing to move
        ({}, "none", {"method": "none"}),
        ({"balance": "none"}, "none", {"method": "none"}),
        # An item of an earlier period than the latest run's:
        ({"balance": "full"}, "none", {"method": "none"}),
        ({"balance": "none"}, "full", {"method": "full"}),
        ({"balance": "nbar"}, "full", {"method": "full"}),
        ({}, "nbar", {"method": "nbar"}),
    ],
)
def test_the_method_is_the_scenes_own(wished: dict[str, Any], scenes: str, expected: dict[str, Any]) -> None:
    told = balance_property(made_with(**wished), facts_of(scenes))
    assert {name: told[name] for name in ("method", "sun", "max_offset") if name in told} == expected
    assert bool(balance_lineage(told)) is (expected["method"] != "none")


def test_a_provenance_that_says_nothing_is_understood() -> None:
    assert balance_property({}, facts_of("none")) == {"method": "none"}
    assert balance_property({}, []) == {"method": "none"}
    assert balance_property({}, facts_of("full"))["method"] == "full"


def test_coefficients_are_those_of_the_plan() -> None:
    told = balance_property(made_with(balance="full"), facts_of("full"))
    assert told["scenes"] == {"balanced": 3, "hazy": 1}
    assert told["apart"] == {"before": [0.008] * len(BANDS), "after": [0.002] * len(BANDS)}
    by_id = {one["id"]: one for one in told["coefficients"]}
    made = balanced_plan(TWO_ZONES)
    for scene in made.scenes[:3]:
        assert scene.correction is not None
        assert by_id[scene.id]["gain"] == scene.correction.gain.tolist()
        assert by_id[scene.id]["offset"] == scene.correction.offset.reshape(-1, 4).tolist()
        assert by_id[scene.id]["hazy"] is scene.correction.hazy
        assert by_id[scene.id]["square"] == [600_000.0, 5_300_040.0, 109_800.0]
    assert "S003" not in by_id


@pytest.mark.parametrize("scenes", [40, 100, 101, 1500])
def test_an_item_stays_small(scenes: int) -> None:
    told = balance_property(made_with(balance="full"), facts_of("full", scenes))
    assert told["scenes"]["balanced"] == scenes
    assert ("coefficients" in told) is (scenes <= 100)
    assert len(json.dumps(told, indent=1)) < (120_000 if scenes <= 40 else 300_000)
    json.dumps(told, allow_nan=False)


def test_documents_of_balanced_scenes_are_valid_and_so_is_their_table(tmp_path: Path) -> None:
    """Two periods: one before anything was balanced."""
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "cube.staging"))
    for number, kind in ((1, "none"), (2, "full")):
        scenes = [
            {**one, "id": f"{one['id']}-{number}", "datetime": f"2023-{number:02d}-10T03:00:00Z"}
            for one in facts_of(kind)
        ]
        provenance = {"software": {"torch": "2"}, "model": "abc", **made_with(balance=kind)}
        draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(number), scenes, provenance)
        target = open_target(storage, staging, draft, label(number))
        first = ShardIndex(WINDOW.row // 64, WINDOW.col // 64)
        shards = [ShardIndex(first.row + i, first.col + j) for i in (0, 1) for j in (0, 1)]
        write(target, number, shards, [EPSG])
        planned = {(EPSG, shard) for shard in shards}
        finish(target, staging, planned, planned)
        target.publish(shards_written=4, keep=1)
    write_records(Cube(storage), Storage(str(tmp_path / "out")))
    said = {}
    for number in (1, 2):
        file = tmp_path / "out" / f"cube_{EPSG}_{label(number)}.json"
        item = json.loads(file.read_text())
        assert date.fromisoformat(item["properties"]["start_datetime"][:10]).month == number
        pystac.validation.validate_dict({**item, "stac_extensions": []})
        said[number] = item["properties"]
    assert [said[n]["difffusr:balance"]["method"] for n in (1, 2)] == ["none", "full"]
    assert [("balanced with each other" in said[n]["processing:lineage"]) for n in (1, 2)] == [False, True]
    rows = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    told = [row["difffusr:balance"] for row in rows]
    assert [one["method"] for one in told] == ["none", "full"]
    kept = said[2]["difffusr:balance"]["coefficients"]
    assert [one["gain"] for one in told[1]["coefficients"]] == [one["gain"] for one in kept]
