"""One odd item never stops a search: it is left out, named and counted by its reason."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stac_items import DROP, collection_file, config, made_item

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.search import Found, search_scenes

Change = Callable[[dict[str, Any]], Any]


def props(**values: Any) -> Change:
    return lambda item: item["properties"].update({key.replace("__", ":"): value for key, value in values.items()})


def top(**values: Any) -> Change:
    return lambda item: item.update(values)


def red(**values: Any) -> Change:
    return lambda item: item["assets"]["red"].update({key.replace("__", ":"): value for key, value in values.items()})


def polygon(*points: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[list(point) for point in points]]}


def searched(folder: Path, items: list[Any], **source: Any) -> Found:
    return search_scenes(config(items=collection_file(folder, items), **source))


def no_such_zone(item: dict[str, Any]) -> None:
    item["id"] = "x_L2A"
    item["properties"]["grid:code"] = "MGRS-61TNT"


NAN = math.nan
NO_FOOTPRINT, ELSEWHERE = "without a footprint", "with a footprint outside its tile"

ODD: list[tuple[str, Change, str]] = [
    ("an unknown baseline", props(s2__processing_baseline="99.33"), "radiometry unknown"),
    ("a baseline to come", props(s2__processing_baseline="06.00"), "radiometry unknown"),
    ("a baseline of zeros", props(s2__processing_baseline="00.00"), "radiometry unknown"),
    (
        "a baseline that its name contradicts",
        props(s2__processing_baseline="02.14"),
        "with contradicting baselines",
    ),
    (
        "no baseline",
        props(s2__processing_baseline=None, s2__product_uri=None),
        "of unknown baseline",
    ),
    (
        "a baseline in other digits",
        props(s2__processing_baseline="٠٥.٠٩", s2__product_uri=None),
        "of unknown baseline",
    ),
    ("no flag", props(earthsearch__boa_offset_applied=None), "radiometry unknown"),
    ("a flag in words", props(earthsearch__boa_offset_applied="true"), "radiometry unknown"),
    ("two flags that differ", props(sentinel__boa_offset_applied=False), "radiometry unknown"),
    ("a foreign bucket", red(href="s3://sentinel2l2a01/x/B04.tif", raster__offset=0.0), "radiometry unknown"),
    ("no geometry", top(geometry=None), NO_FOOTPRINT),
    ("an empty polygon", top(geometry={"type": "Polygon", "coordinates": []}), NO_FOOTPRINT),
    ("an empty ring", top(geometry={"type": "Polygon", "coordinates": [[]]}), NO_FOOTPRINT),
    ("a point", top(geometry={"type": "Point", "coordinates": [9, 47]}), NO_FOOTPRINT),
    ("a line as polygon", top(geometry=polygon((9, 47), (10, 47), (9, 47), (9, 47))), NO_FOOTPRINT),
    ("corners without number", top(geometry=polygon((9, 47), (NAN, 47), (10, 48), (9, 47))), NO_FOOTPRINT),
    ("corners in metres", top(geometry=polygon((5e5, 5e6), (6e5, 5e6), (6e5, 6e6), (5e5, 5e6))), NO_FOOTPRINT),
    ("corners beyond all bounds", top(geometry=polygon((1e308, 4), (1, 4), (1, 5), (1e308, 4))), NO_FOOTPRINT),
    ("a geometry in words", top(geometry="POLYGON ((9 47, 10 47, 10 48, 9 47))"), NO_FOOTPRINT),
    ("a list as geometry", top(geometry=[9, 47, 10, 48]), NO_FOOTPRINT),
    ("x and y exchanged", top(geometry=polygon((47, 9), (48, 9), (48, 10), (47, 9))), ELSEWHERE),
    ("another continent", top(geometry=polygon((-70, 4), (-69, 4), (-69, 5), (-70, 4))), ELSEWHERE),
    ("no datetime", props(datetime=None), "without a datetime"),
    ("a datetime in words", props(datetime="last June"), "without a datetime"),
    ("a datetime before all", props(datetime="0001-01-01T00:00:00+05:00"), "without a datetime"),
    ("a number as datetime", props(datetime=20230605), "without a datetime"),
    ("a band without href", lambda item: item["assets"]["red"].pop("href"), "without a band"),
    ("a band whose href is null", red(href=None), "without a band"),
    ("a band that is a list", lambda item: item["assets"].update(red=["B04.tif"]), "without a band"),
    ("no assets", top(assets={}), "without a band"),
    ("null as assets", top(assets=None), "without a band"),
    ("a list as assets", top(assets=[1]), "not valid STAC"),
    ("a list as properties", top(properties=["a"]), "not valid STAC"),
    ("a scheme of no storage", red(href="ftp://host/B04.tif"), "with an address that cannot be used"),
    ("half an address", red(href="http://[half/B04.tif"), "with an address that cannot be used"),
    ("an address over two lines", red(href="/data/a\nb.tif"), "with an address that cannot be used"),
    ("another scale", red(raster__scale=0.001), "with another raster scale"),
    ("a scale that is no number", red(raster__scale=math.nan), "with a bad scale"),
    ("two scales", red(raster__scale=0.0001, **{"raster__bands": [{"scale": 1}]}), "with a bad scale"),
    ("an offset in words", red(raster__offset="-0.1"), "with a bad offset"),
    ("another zone's CRS", props(proj__code="EPSG:32633"), "with a CRS that is not its tile's"),
    ("a band in another CRS", red(proj__epsg=3857), "with a CRS that is not its tile's"),
    ("a list as CRS", red(proj__code=[32632]), "with a CRS that is not its tile's"),
    ("a zone that is none", no_such_zone, "without an MGRS tile"),
    ("two tiles", props(s2__mgrs_tile="33TWN"), "with contradicting tiles"),
    ("a slash in the id", top(id="S2A/32TNT"), "with an id that cannot be a name"),
    ("an id over two lines", top(id="S2A\n32TNT"), "with an id that cannot be a name"),
    ("half a character in the id", top(id="S2A_\ud800_32TNT"), "with an id that cannot be a name"),
    ("an endless id", top(id="S2A_32TNT_" * 100), "with an id that cannot be a name"),
    ("no id", lambda item: item.pop("id"), "without id"),
    ("a number as id", top(id=7), "without id"),
    ("level 1C by product type", props(s2__product_type="S2MSI1C"), "with contradicting levels"),
    ("level 1C by its file", red(href="/d/S2A_MSIL1C_20230620T102031.SAFE/B04.tif"), "of level 1C"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), [odd[1:] for odd in ODD], ids=[odd[0] for odd in ODD])
def test_an_odd_item_is_left_out_and_the_others_are_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Change, reason: str
) -> None:
    odd = made_item(20)
    change(odd)
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        found = searched(tmp_path, [made_item(1), odd, made_item(3), made_item(4), made_item(5)])
    assert [scene.datetime.day for scene in found.scenes] == [1, 3, 4, 5]
    (told,) = found.left_out.to_json()
    assert (told["reason"], told["items"]) == (reason, 1)
    name = odd.get("id")
    if isinstance(name, str) and name.isprintable() and "/" not in name:
        assert name[:80] in told["named"][0]
        assert name[:80] in caplog.text
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]
    # Alone, it ends the search with the same reason.
    with pytest.raises(CatalogError, match=f"no scene found: .*1 items seen; left out by reason: 1 {reason}"):
        searched(tmp_path, [odd])


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item["assets"].update(thumbnail={"href": "t.tif", "type": "image/tiff", "proj:code": "EPSG:3857"}),
        lambda item: item["assets"].update(visual={"href": "TCI.tif", "type": "image/tiff", "proj:epsg": 4326}),
        lambda item: item["assets"].update(thumbnail={}, preview=None, metadata="x", aot={"href": 3}),
        lambda item: item["assets"].update(thumbnail={"href": "http://[half", "proj:transform": "none"}),
        lambda item: item["assets"].update(preview={"href": "p.jp2", "gsd": "coarse", "raster:bands": 7}),
        top(links=None),
        top(links="none", bbox=[], stac_extensions=None),
        props(eo__cloud_cover=-1),
        props(eo__cloud_cover=1e308, view__sun_elevation=[], s2__nodata_pixel_percentage="none"),
        props(eo__cloud_cover=math.nan, created=7, updated=[], s2__sequence={}),
        props(statistics=[1], s2__datastrip_id=4),
    ],
)
def test_what_is_wrong_where_nobody_looks_does_not_matter(tmp_path: Path, change: Change) -> None:
    one = made_item(20)
    change(one)
    found = searched(tmp_path, [one])
    assert [scene.id for scene in found.scenes] == [one["id"]]
    assert 0 <= found.scenes[0].cloud_cover <= 100


@pytest.mark.parametrize("thing", [None, 3, "item", [], [{}]])
def test_what_is_no_item_is_left_out(monkeypatch: pytest.MonkeyPatch, thing: Any) -> None:
    items = iter([(thing, "/d/i.json"), (made_item(1), "/d/i.json")])
    monkeypatch.setattr("difffusr.pipeline.scenes.search.items_of", lambda search: items)
    found = search_scenes(config(items="/d/i.json"))
    assert ([scene.datetime.day for scene in found.scenes], found.left_out.count, found.seen) == ([1], 1, 2)


def odd_ones(good: int, odd: int) -> list[dict[str, Any]]:
    bad = [made_item(1, s2__unused=1) for _ in range(odd)]
    for number, one in enumerate(bad):
        one.update(id=f"odd-{number}_L2A", geometry=None)
    return [dict(made_item(1), id=f"S2A_32TNT_{number}_L2A") for number in range(good)] + bad


@pytest.mark.parametrize(
    ("good", "odd", "allowed", "passes"),
    [
        (1, 10, None, True),
        (1, 11, None, False),
        (90, 10, None, True),
        (98, 11, None, False),
        (99, 11, None, True),
        (9, 1, 0.1, True),
        (8, 1, 0.1, False),
        (99, 1, 0, False),
        (99, 0, 0, True),
        (1, 30, "100%", True),
        (3, 1, "25 %", True),
        (2, 1, "25%", False),
    ],
)
def test_how_much_may_be_left_out(tmp_path: Path, good: int, odd: int, allowed: Any, passes: bool) -> None:
    source = {} if allowed is None else {"max_left_out": allowed}
    if passes:
        assert searched(tmp_path, odd_ones(good, odd), **source).left_out.count == odd
        return
    with pytest.raises(CatalogError) as caught:
        searched(tmp_path, odd_ones(good, odd), **source)
    said = str(caught.value)
    assert f"{odd} of {good + odd} items of area and period are left out" in said
    assert f"{odd} without a footprint (odd-0_L2A" in said
    assert "source.max_left_out" in said
    assert "\n" not in said


def test_what_is_merely_elsewhere_is_not_left_out(tmp_path: Path) -> None:
    items = [made_item(1), *(made_item(day, tile="33TWN") for day in range(2, 20)), made_item(30)]
    items[-1]["collection"] = "sentinel-2-l1c"
    found = searched(tmp_path, items, max_left_out=0)
    assert found.left_out.count == 0
    assert len(found.scenes) == 19
    elsewhere = config({"tiles": ["32TNT"]}, items=collection_file(tmp_path, items), max_left_out=0)
    assert dict(search_scenes(elsewhere).filtered) == {"of other tiles": 18, "in collection 'sentinel-2-l1c'": 1}


def test_reasons_are_counted_and_the_first_of_each_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [made_item(1), *(dict(made_item(day), geometry=None) for day in range(2, 7))]
    items += [made_item(9, datetime=DROP), made_item(10, datetime="?")]
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        told = searched(tmp_path, items).left_out.to_json()
    assert [(one["reason"], one["items"], len(one["named"])) for one in told] == [
        ("without a footprint", 5, 3),
        ("without a datetime", 2, 2),
    ]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "7 items are left out by reason: 5 without a footprint, 2 without a datetime"
    assert lines[1].startswith("left out: 5 items without a footprint (S2A_32TNT_20230602_0_L2A, ")
    assert len(lines) == 3


def test_a_whole_copy_of_an_odd_item_is_taken(tmp_path: Path) -> None:
    odd, whole = made_item(2), made_item(2)
    odd["geometry"] = None
    found = searched(tmp_path, [odd, odd, whole, whole, odd])
    assert ([scene.id for scene in found.scenes], found.seen) == ([whole["id"]], 1)
    assert found.left_out.count == 1


def test_secrets_of_addresses_are_not_told(tmp_path: Path) -> None:
    one = made_item(2)
    one["assets"]["red"]["href"] = "ftp://user:word@host/B04.tif?sig=SECRET"
    with pytest.raises(CatalogError) as caught:
        searched(tmp_path, [one])
    assert "SECRET" not in str(caught.value)
    assert "word" not in str(caught.value)


def test_the_counts_are_json(tmp_path: Path) -> None:
    found = searched(tmp_path, [made_item(1), dict(made_item(2), id="\ud800")])
    json.dumps(found.to_json(), allow_nan=False).encode()
    assert found.to_json()["seen"] == 2
