"""What masks change in a plan: which chips are clear, which keys they have, what is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from masked_scenes import SIDE_M, clouded
from numpy.typing import NDArray
from planned_areas import CLEAR, config, made_scene
from small_rasters import scene_of

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.plan.diff import compare
from difffusr.pipeline.plan.keys import ContentKeys
from difffusr.pipeline.plan.planner import make_plan
from difffusr.pipeline.plan.reasons import Reason
from difffusr.pipeline.plan.tables import Plan, StoredPlan
from difffusr.pipeline.scenes import csmask, network_mask, rules
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.rules import ChipRules

N = SIDE_M // 20


def plan_of(folder: Path, scenes: list[Scene], **settings: Any) -> Plan:
    area = {"bbox": list(in_degrees(scenes[0]))}
    return make_plan(config(folder, area=area, grid={"chip_px": 96, "overlap_px": 24}, scenes=settings), scenes, "m")


def in_degrees(scene: Scene) -> tuple[float, float, float, float]:
    west, south, east, north = scene.footprint.bounds
    return west, south, east, north


def placed(scene: Scene) -> Scene:
    """A scene with the outline of its files."""
    import shapely
    from planned_areas import in_degrees_of

    assert scene.scl is not None
    assert scene.scl.transform is not None
    left, top = scene.scl.transform[2], scene.scl.transform[5]
    return replace(scene, footprint=in_degrees_of(shapely.box(left, top - SIDE_M, left + SIDE_M, top), scene.epsg))


def half_cloudy(column: int = N // 2) -> NDArray[np.uint8]:
    scl = np.full((N, N), 4, np.uint8)
    scl[:, :column] = 9
    return scl


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A stand-in that finds cloud in the north; counts how often it is asked."""
    asked: list[int] = []

    def north(image: Any) -> NDArray[np.uint8]:
        asked.append(1)
        out = np.zeros(image["blue"].shape, np.uint8)
        out[: len(out) // 2] = 1
        return out

    monkeypatch.setattr(network_mask, "run_network", north)
    monkeypatch.setattr(rules, "network_version", lambda: "1.0")
    network_mask._fetched.cache_clear()
    yield asked
    network_mask._fetched.cache_clear()


@pytest.mark.parametrize(("metres", "lost"), [(0, 0), (60, 1), (100, 2), (120, 2), (300, 5)])
def test_growth_makes_chips_less_clear_by_its_cells(tmp_path: Path, metres: int, lost: int) -> None:
    """Cells have 60 m: a border moves by the nearest whole number of them."""
    scene = placed(clouded(tmp_path / "a", half_cloudy()))
    plain = plan_of(tmp_path, [scene])
    grown = plan_of(tmp_path, [scene], dilate_cloud_m=metres)
    cells = 16 * 16
    here = {chip.index: chip for chip in grown.chips}
    for chip in plain.chips:
        if chip.covered == 1 and 0.35 < chip.clear < 0.4:
            assert round((chip.clear - here[chip.index].clear) * cells) == 16 * lost
            break
    else:
        raise AssertionError("no chip lies across the border")


def test_the_probability_decides_where_the_item_has_one(tmp_path: Path) -> None:
    scene = placed(clouded(tmp_path / "a", half_cloudy(), np.zeros((N, N))))
    assert plan_of(tmp_path, [scene]).chips.clear.min() < 0.5
    by_asset = plan_of(tmp_path, [scene], masks="asset")
    assert np.array_equal(by_asset.chips.clear, by_asset.chips.covered)


@pytest.mark.parametrize("lacking", [0, 1, 3])
def test_scenes_without_probability_are_counted_once(tmp_path: Path, lacking: int, caplog: Any) -> None:
    scl = half_cloudy()
    scenes = [
        placed(clouded(tmp_path / name, scl, None if number < lacking else np.zeros((N, N))))
        for number, name in enumerate("abc")
    ]
    with caplog.at_level(logging.WARNING):
        plan_of(tmp_path, scenes, masks="asset")
    said = [record.getMessage() for record in caplog.records if "cloud probability" in record.getMessage()]
    expected = f"{lacking} of 3 scenes have no cloud probability among their assets (a …): their SCL decides"
    assert [text.startswith(expected) for text in said] == [True] * bool(lacking)


def test_a_scene_whose_probability_cannot_be_read_is_left_out(tmp_path: Path, caplog: Any) -> None:
    good, bad = (placed(clouded(tmp_path / name, half_cloudy(), np.zeros((N, N)))) for name in ("good", "bad"))
    Path(bad.file("CLD").href).write_bytes(b"no raster")
    with caplog.at_level(logging.WARNING):
        plan = plan_of(tmp_path, [good, bad], masks="asset")
    assert [scene.id for scene in plan.scenes] == ["good"]
    assert "scene left out: scene bad, CLD" in caplog.text
    assert {scene.id for scene in plan_of(tmp_path, [bad]).scenes} == {"bad"}


def test_the_network_is_asked_once_a_scene_and_not_by_the_next_plan(tmp_path: Path, network: list[int]) -> None:
    scene = placed(clouded(tmp_path / "a", half_cloudy()))
    first = plan_of(tmp_path, [scene], masks="csmask")
    network_mask._fetched.cache_clear()
    second = plan_of(tmp_path, [scene], masks="csmask")
    assert len(network) == 1
    assert np.array_equal(first.chips.key, second.chips.key)
    assert np.array_equal(first.chips.clear, second.chips.clear)
    south = first.chips.row == first.chips.row.max()
    assert first.chips.clear[south].sum() > first.chips.clear[~south].min()
    assert (first.chips.clear < first.chips.covered).any()


def test_a_scene_of_which_no_mask_can_be_made_is_left_out(tmp_path: Path, network: list[int], caplog: Any) -> None:
    good, bad = (placed(clouded(tmp_path / name, half_cloudy())) for name in ("good", "bad"))
    Path(bad.assets["B08"].href).unlink()
    with caplog.at_level(logging.WARNING):
        plan = plan_of(tmp_path, [good, bad], masks="csmask")
    assert [scene.id for scene in plan.scenes] == ["good"]
    assert "scene left out: scene bad, B08" in caplog.text


def test_a_missing_package_ends_planning_before_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csmask, "_is_installed", lambda module: False)
    with pytest.raises(ConfigError) as caught:
        decide(config(tmp_path, scenes={"masks": "csmask"}, source={"static_catalog": "/nowhere/catalog.json"}))
    assert "pip install 'difffusr[csmask]'" in str(caught.value)


# ---- content keys ---------------------------------------------------------------------------------------------------

PLACE, CHOSEN = np.zeros((1, 3), np.int32), np.zeros((1, 1), np.int32)


def key(folder: Path, scene: Scene, **settings: Any) -> bytes:
    return ContentKeys.of(config(folder, scenes=settings), [scene], "m").table(PLACE, CHOSEN).tobytes()


def with_probability(scene: Scene) -> Scene:
    return replace(scene, cloud=scene.assets["B04"])


@pytest.mark.parametrize(
    "settings",
    [
        {"masks": "asset"},
        {"masks": "asset", "max_cloud_probability": 39},
        {"masks": "asset", "max_cloud_probability": 40.5},
        {"masks": "csmask"},
        {"dilate_cloud_m": 20},
        {"dilate_shadow_m": 20},
        {"dilate_cloud_m": 40},
        {"masks": "csmask", "dilate_cloud_m": 20},
        {"masks": "asset", "dilate_cloud_m": 20},
    ],
)
def test_every_mask_has_keys_of_its_own(tmp_path: Path, settings: dict[str, Any], network: list[int]) -> None:
    scene = with_probability(scene_of("a.tif"))
    others = [
        {}, {"masks": "asset"}, {"masks": "asset", "max_cloud_probability": 39}, {"masks": "csmask"},
        {"masks": "asset", "max_cloud_probability": 40.5}, {"dilate_cloud_m": 20}, {"dilate_shadow_m": 20},
        {"dilate_cloud_m": 40}, {"masks": "csmask", "dilate_cloud_m": 20}, {"masks": "asset", "dilate_cloud_m": 20},
    ]  # fmt: skip
    same = [other for other in others if key(tmp_path, scene, **other) == key(tmp_path, scene, **settings)]
    assert same == [settings]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"masks": "scl"}),
        ({}, {"max_cloud_probability": 10}),
        ({}, {"dilate_cloud_m": 0, "dilate_shadow_m": 0}),
        ({"masks": "csmask"}, {"masks": "csmask", "max_cloud_probability": 10}),
        ({"masks": "asset"}, {"masks": "asset", "max_cloud_probability": 40}),
    ],
)
def test_what_decides_nothing_changes_no_key(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], network: list[int]
) -> None:
    scene = with_probability(scene_of("a.tif"))
    assert key(tmp_path, scene, **one) == key(tmp_path, scene, **other)


def test_a_scene_without_probability_keeps_its_keys(tmp_path: Path) -> None:
    """Its SCL decides, whatever is asked for; and whether it has a probability that nobody asks for does not matter."""
    scene = scene_of("a.tif")
    assert key(tmp_path, scene, masks="asset") == key(tmp_path, scene)
    assert key(tmp_path, with_probability(scene)) == key(tmp_path, scene)


def test_another_version_of_the_network_has_other_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for version in ("1.0", "1.1"):
        monkeypatch.setattr(rules, "network_version", lambda version=version: version)
        found.add(key(tmp_path, scene_of("a.tif"), masks="csmask"))
    assert len(found) == 2


def test_where_masks_are_kept_does_not_matter(tmp_path: Path, network: list[int]) -> None:
    scene = scene_of("a.tif")
    keys = {key(tmp_path / name, scene, masks="csmask") for name in ("a", "b")}
    assert len(keys) == 1
    assert ChipRules.of({"masks": "csmask"}) == ChipRules(masks="csmask", mask_version="1.0")


@pytest.mark.parametrize("change", [{"dilate_cloud_m": 100}, {"dilate_shadow_m": 60}])
def test_a_difference_names_the_setting(tmp_path: Path, change: dict[str, Any]) -> None:
    scene = made_scene(tmp_path, "one", 32633, 499_980, 5_200_020, CLEAR)
    area = {"bbox": [14.9, 46.7, 15.4, 47.0]}
    old, new = (make_plan(config(tmp_path, area=area, scenes=wishes), [scene], "m") for wishes in ({}, change))
    stored = StoredPlan(old.manifest, _table_of(old), old.chips, old.shards)
    causes = compare(stored, new).causes
    assert set(causes) == {Reason.RULES}
    (setting,) = causes[Reason.RULES].settings
    assert setting.startswith(f"scenes.{next(iter(change))}: not set → ")


def _table_of(plan: Plan) -> Any:
    from difffusr.pipeline.plan.files import _scene_table

    return _scene_table(plan)
