"""What an item says of its files' pixels is used where it is plausible; else the file decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stac_items import KEYS, collection_file, config, made_item

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.item import Asset, scene_from_item
from difffusr.pipeline.scenes.search import find_scenes


def asset_of(change: Callable[[dict[str, Any]], Any], band: str = "B05") -> tuple[Asset, list[str]]:
    """The asset of a 20 m band whose item was changed, and what was doubted."""
    one = made_item()
    change(one["assets"][KEYS[band]])
    doubted: list[str] = []
    return scene_from_item(one, "/d/i.json", doubt=doubted.append).assets[band], doubted


def transform(*numbers: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda asset: asset.update({"proj:transform": list(numbers)})


def shape(*sides: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda asset: asset.update({"proj:shape": list(sides)})


X, Y = 600_000, 5_200_020


def test_the_usual_hints_are_believed() -> None:
    one = made_item()
    x, y = (one["assets"]["rededge1"]["proj:transform"][place] for place in (2, 5))
    asset, doubted = asset_of(lambda asset: None)
    assert (asset.gsd_m, asset.shape, asset.transform) == (20, (5490, 5490), (20, 0, x, 0, -20, y))
    nine, _ = asset_of(lambda asset: asset["proj:transform"].extend([0, 0, 1]))
    assert nine == asset
    assert doubted == []


@pytest.mark.parametrize(
    "change",
    [
        transform(X, 20, 0, Y, 0, -20),  # the order of GDAL
        transform(20, 0, X, 0, 20, Y),  # the wrong sign
        transform(-20, 0, X, 0, -20, Y),
        transform(10, 0, X, 0, -10, Y),  # another band's size of pixels
        transform(60, 0, X, 0, -60, Y),
        transform(0.0002, 0, 10.3, 0, -0.0002, 46.9),  # degrees
        transform(20, 1, X, 1, -20, Y),  # rotated
        transform(20, 0, X, 0, -10, Y),
        transform(20, 0, 0, 0, -20, 0),  # off the zone
        transform(20, 0, X, 0, -20, Y + 10_000_000),  # of the other hemisphere
        transform(20, 0, X + 600_000, 0, -20, Y),
        transform(20, 0, None, 0, -20, Y),
        transform("20", "0", str(X), "0", "-20", str(Y)),
        transform(float("nan"), 0, X, 0, -20, Y),
        transform(0, 0, 0, 0, 0, 0),
        transform(20, 0, X),
        transform(1e308, 0, X, 0, -1e308, Y),
        lambda asset: asset.update({"proj:transform": "none"}),
        lambda asset: asset.update({"proj:transform": {"a": 20}}),
        shape(10_980, 10_980),  # of a band of 10 m
        shape(5490),
        shape(5490, 5490, 1),
        shape(-5490, 5490),
        shape(5490.5, 5490),
        shape("5490", "5490"),
        lambda asset: asset.update({"proj:shape": 5490}),
    ],
)
def test_implausible_hints_are_ignored_with_a_word(change: Callable[[dict[str, Any]], Any]) -> None:
    asset, doubted = asset_of(change)
    assert (asset.gsd_m, asset.shape) == (20, None)
    assert asset.transform is None
    (word,) = doubted
    assert "asset rededge1" in word


@pytest.mark.parametrize(
    "change",
    [
        lambda asset: asset.pop("proj:transform"),
        lambda asset: asset.pop("proj:shape"),
        lambda asset: asset.update({"proj:transform": None, "proj:shape": None}),
        shape(2745, 2745),  # a quarter of the ground that the item shows: the planner must not rely on it
        shape(100, 5490),
    ],
)
def test_what_is_not_said_or_may_be_too_small_is_left_to_the_file(change: Callable[[dict[str, Any]], Any]) -> None:
    asset, doubted = asset_of(change)
    assert (asset.gsd_m, asset.transform, doubted) == (20, None, [])


@pytest.mark.parametrize("gsd", [10, 60, 0, -20, "fine", None, [20], float("nan"), 1e308])
def test_a_wrong_gsd_leaves_the_band_where_it_is(gsd: Any) -> None:
    asset, _ = asset_of(lambda asset: asset.update({"gsd": gsd}))
    bare, _ = asset_of(lambda asset: (asset.update({"gsd": gsd}), asset.pop("proj:transform")))
    assert asset.gsd_m == bare.gsd_m == 20
    assert asset.href.endswith("/B05.tif")


def test_of_two_files_the_one_at_native_resolution_is_taken() -> None:
    one = made_item()
    other = dict(one["assets"]["rededge1"], href="/data/coarse.tif", gsd=60)
    other["proj:transform"] = [60, *other["proj:transform"][1:4], -60, other["proj:transform"][5]]
    one["assets"] = {"B05": other, **one["assets"]}
    assert scene_from_item(one, "/d/i.json").assets["B05"].href.endswith("/B05.tif")
    for key in ("B05_60m", "rededge1_10m"):  # the key says so: there is none
        renamed = made_item()
        renamed["assets"][key] = renamed["assets"].pop("rededge1")
        with pytest.raises(CatalogError, match="no file of B05"):
            scene_from_item(renamed, "/d/i.json")
    named = made_item()
    named["assets"]["rededge1"]["href"] = "/data/T32TNT_20230601T102031_B05_60m.jp2"
    with pytest.raises(CatalogError, match="no file of B05"):
        scene_from_item(named, "/d/i.json")


def test_one_search_says_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [made_item(day) for day in range(1, 6)]
    for one in items:
        for key, asset in one["assets"].items():
            a, b, c, d, e, f = asset["proj:transform"]
            asset["proj:transform"] = [c, a, b, f, d, e]
            assert key
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        scenes = find_scenes(config(items=collection_file(tmp_path, items)))
    assert len(scenes) == 5
    (record,) = caplog.records
    assert record.getMessage().startswith("proj:transform or proj:shape of 65 files cannot be right (item S2A_32TNT_")
    for scene in scenes:
        assert {band: asset.gsd_m for band, asset in scene.assets.items()} == GSD_M
