"""Every provider's items become scenes with files and radiometry that are right, or are refused for a stated reason."""

from __future__ import annotations

import copy
import functools
import http.server
import json
import logging
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from beside import SHARED

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.geo.globe import tile_footprint
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.scenes.item import describe, scene_from_item
from difffusr.pipeline.scenes.search import find_scenes

ITEMS = SHARED / "data" / "stac_items"
ARCHIVE = SHARED / "data" / "archive"

pytestmark = pytest.mark.skipif(not ITEMS.is_dir(), reason=f"the real STAC items are not at {SHARED}")

WORLD = {"bbox": [-180, -90, 180, 90]}


def config(
    source: dict[str, Any], area: dict[str, Any] | None = None, days: str = "2015-06-23/2030-12-31"
) -> RunConfig:
    start, end = days.split("/")
    return RunConfig.model_validate(
        {
            "name": "test",
            "area": area or WORLD,
            "period": {"start": start, "end": end},
            "source": source,
            "store": {"url": "/nowhere/cube.zarr"},
        }
    )


def item(name: str, index: int = 0) -> dict[str, Any]:
    document = json.loads(next(ITEMS.glob(f"{name}*")).read_text())
    found = document["features"][index] if document["type"] == "FeatureCollection" else document
    assert isinstance(found, dict)
    return found


def every_item() -> list[dict[str, Any]]:
    documents = [json.loads(file.read_text()) for file in sorted(ITEMS.iterdir())]
    return [one for d in documents for one in (d["features"] if d["type"] == "FeatureCollection" else [d])]


# ---- items ----------------------------------------------------------------------------------------------------------

#: File, tile, EPSG, baseline, provider, offset of its bands, driver.
REAL = [
    ("antimeridian_", "01WCR", 32601, "05.09", "earth-search", -1000, "JP2OpenJPEG"),
    ("cdse_v1_S2B_T36NYH", "36NYH", 32636, "05.00", "cdse", -1000, "JP2OpenJPEG"),
    ("cdse_v1_S2C_T55WFR", "55WFR", 32655, "05.12", "cdse", -1000, "JP2OpenJPEG"),
    ("earthsearch_v0_sentinel-s2-l2a-cogs_S2A_28QCH", "28QCH", 32628, "02.14", "earth-search", 0, "GTiff"),
    ("earthsearch_v0_sentinel-s2-l2a-cogs_S2A_34SGA", "34SGA", 32634, "02.14", "other", 0, "GTiff"),
    ("earthsearch_v1_local_S2A_33TWL_20230815", "33TWL", 32633, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_local_S2A_33TWL_20230818", "33TWL", 32633, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_local_S2A_33TWM_20230815", "33TWM", 32633, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_local_S2A_33TWM_20230818", "33TWM", 32633, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T20EPT", "20EPT", 32720, "05.11", "earth-search", -1000, "GTiff"),
    ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T24MXV", "24MXV", 32724, "05.11", "earth-search", -1000, "GTiff"),
    ("earthsearch_v1_sentinel-2-l2a_S2A_12RWT", "12RWT", 32612, "05.10", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_sentinel-2-l2a_S2A_13TDE", "13TDE", 32613, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ", "31UDQ", 32631, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_sentinel-2-l2a_S2A_32TPS", "32TPS", 32632, "05.09", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_sentinel-2-l2a_S2B_20EPT", "20EPT", 32720, "05.11", "earth-search", 0, "GTiff"),
    ("earthsearch_v1_sentinel-2-l2a_S2B_24MXV", "24MXV", 32724, "05.11", "earth-search", 0, "GTiff"),
    ("planetarycomputer_S2A_T60VUK", "60VUK", 32660, "02.12", "planetary-computer", 0, "GTiff"),
    ("planetarycomputer_S2B_T06VVN", "06VVN", 32606, "02.12", "planetary-computer", 0, "GTiff"),
    ("planetarycomputer_itemcollection_site1", "35MNM", 32735, "02.12", "planetary-computer", 0, "GTiff"),
    ("planetarycomputer_itemcollection_site2", "35MNM", 32735, "02.12", "planetary-computer", 0, "GTiff"),
    ("stactools_S2A_T01KAB", "01KAB", 32701, "05.09", "local", -1000, "JP2OpenJPEG"),
    ("stactools_S2A_T07HFE", "07HFE", 32707, "02.12", "local", 0, "GTiff"),
    ("stactools_S2B_T33XWJ", "33XWJ", 32633, "04.00", "local", -1000, "GTiff"),
]


def test_the_table_above_covers_every_file() -> None:
    prefixes = [row[0] for row in REAL]
    for file in ITEMS.iterdir():
        assert sum(file.name.startswith(prefix) for prefix in prefixes) == 1, file.name


@pytest.mark.parametrize(("name", "tile", "epsg", "baseline", "provider", "offset", "driver"), REAL)
def test_a_real_item_is_understood(
    name: str, tile: str, epsg: int, baseline: str, provider: str, offset: int, driver: str
) -> None:
    scene = scene_from_item(item(name), "/data/items/item.json")
    assert (scene.tile, scene.epsg, scene.baseline, scene.provider) == (tile, epsg, baseline, provider)
    assert set(scene.assets) == set(BANDS)
    for band, asset in scene.assets.items():
        assert asset.offset_dn == offset, band
        assert asset.driver == driver, band
        assert asset.gsd_m == GSD_M[band], band
        assert asset.shape == (109_800 // GSD_M[band],) * 2
        assert asset.transform is not None
        assert asset.nodata == 0
        # File names of the providers carry the band, and where there is one file a resolution, that as well.
        file = asset.href.rpartition("/")[2]
        assert band in file
        assert not any(f"_{gsd}m" in file for gsd in {10, 20, 60} - {GSD_M[band]})
    assert scene.scl is not None
    assert (scene.scl.gsd_m, scene.scl.offset_dn) == (20, 0)
    assert "SCL" in scene.scl.href
    assert scene.datetime.tzinfo is UTC
    assert tile_footprint(tile).buffer(0.02).covers(scene.footprint)
    assert tile in describe(scene)
    assert "\n" not in describe(scene)


def test_a_footprint_over_180_degrees_stays_on_its_sides() -> None:
    for name in ("antimeridian_", "stactools_S2A_T01KAB"):
        footprint = scene_from_item(item(name), "/data/item.json").footprint
        assert footprint.area < 4
        assert footprint.bounds[0] == -180
        assert footprint.bounds[2] == 180
    one_ring = item("antimeridian_")
    one_ring["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[178, 67.5], [-179, 67.5], [-179, 68.5], [178, 68.5], [178, 67.5]]],
    }
    assert scene_from_item(one_ring, "/data/item.json").footprint.area == pytest.approx(3)


def test_a_cog_is_preferred_to_the_jp2_of_the_same_item() -> None:
    scene = scene_from_item(item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ"), "/data/item.json")
    assert all(asset.href.endswith(".tif") for asset in scene.assets.values())


def test_relative_hrefs_lie_beside_their_item() -> None:
    near = scene_from_item(item("earthsearch_v1_sentinel-2-l2a_S2A_12RWT"), "/data/items/a/item.json")
    assert near.assets["B04"].href == "/data/items/a/B04.tif"
    assert near.assets["B05"].href.startswith("https://sentinel-cogs.s3.us-west-2.amazonaws.com/")
    far = scene_from_item(item("stactools_S2B_T33XWJ"), "https://host/x/item.json", remote=True)
    assert far.assets["B02"].href.startswith("https://host/x/GRANULE/")
    bucket = scene_from_item(item("stactools_S2B_T33XWJ"), "s3://bucket/x/item.json", remote=True)
    assert bucket.assets["B02"].href.startswith("s3://bucket/x/GRANULE/")
    here = scene_from_item(item("earthsearch_v1_sentinel-2-l2a_S2A_12RWT"), "file:///data/a%20b/item.json")
    assert here.assets["B04"].href == "/data/a b/B04.tif"
    # A server on loopback is this machine, and may name its files.
    mine = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    mine["assets"]["red"]["href"] = "/data/B04.tif"
    assert scene_from_item(mine, "http://127.0.0.1:8080/item").assets["B04"].href == "/data/B04.tif"


@pytest.mark.parametrize("href", ["/etc/passwd.tif", "file:///etc/passwd.tif", "FILE:///x.tif", "/vsizip/x.tif"])
def test_a_remote_catalogue_may_not_name_local_files(href: str) -> None:
    foreign = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    foreign["assets"]["red"]["href"] = href
    with pytest.raises(CatalogError, match=r"31UDQ.*asset red.*local file"):
        scene_from_item(foreign, "https://host/item.json", remote=True)
    # Nor through the base that it claims for itself.
    foreign["assets"]["red"]["href"] = "passwd.tif"
    with pytest.raises(CatalogError, match="local file"):
        scene_from_item(foreign, "file:///etc/item.json", remote=True)


@pytest.mark.parametrize("href", ["ftp://h/x.tif", "GTI:/x.tif", "vrt:///x.tif", "file://host/x.tif", "https:x.tif"])
def test_other_schemes_are_refused(href: str) -> None:
    foreign = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    foreign["assets"]["red"]["href"] = href
    with pytest.raises(CatalogError, match="asset red: href"):
        scene_from_item(foreign, "/data/item.json")


def test_signatures_are_not_shown() -> None:
    assert bare_href("https://user:pw@host/a/b.tif?sig=SECRET#x") == "https://host/a/b.tif"
    signed = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    signed["properties"]["s2:processing_baseline"] = "99.99"
    signed["assets"]["coastal"]["href"] += "?sig=SECRET"
    with pytest.raises(CatalogError) as caught:
        scene_from_item(signed, "/data/item.json")
    assert "coastal" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_scene_travels_to_workers_and_keeps_its_version() -> None:
    first = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    scene = scene_from_item(first, "/data/item.json")
    assert pickle.loads(pickle.dumps(scene)) == scene
    assert hash(scene)
    assert pickle.loads(pickle.dumps(scene)).version_key() == scene.version_key()
    for key, value in (("updated", "2024-01-01T00:00:00Z"), ("s2:processing_baseline", "05.10"), ("s2:sequence", "1")):
        other = copy.deepcopy(first)
        other["properties"][key] = value
        assert scene_from_item(other, "/data/item.json").version_key() != scene.version_key()
    moved = copy.deepcopy(first)
    moved["assets"]["red"]["href"] += "?sig=another"
    assert scene_from_item(moved, "/data/item.json").version_key() == scene.version_key()


# ---- radiometry -----------------------------------------------------------------------------------------------------


def offsets(one: dict[str, Any]) -> set[int]:
    return {asset.offset_dn for asset in scene_from_item(one, "/data/item.json").assets.values()}


def changed(name: str, *, bucket: tuple[str, str] | None = None, **properties: Any) -> dict[str, Any]:
    one = item(name)
    for key, value in properties.items():
        prefix, _, rest = key.partition("_")
        one["properties"][f"{prefix}:{rest}"] = value
    one["properties"] = {key: value for key, value in one["properties"].items() if value is not None}
    if bucket:
        for asset in one["assets"].values():
            asset["href"] = asset["href"].replace(*bucket)
    return one


ES = "earthsearch_v1_sentinel-2-l2a_S2A_31UDQ"
ES_C1 = "earthsearch_v1_sentinel-2-c1-l2a_S2B_T24MXV"
PC = "planetarycomputer_S2B_T06VVN"
MIRROR = ("sentinel-cogs.s3.us-west-2.amazonaws.com", "mirror.example.org")


@pytest.mark.parametrize(
    ("one", "offset"),
    [
        (lambda: changed(ES, earthsearch_boa_offset_applied=True), 0),
        (lambda: changed(ES, earthsearch_boa_offset_applied=False), -1000),
        (lambda: changed(ES, s2_processing_baseline="03.01", earthsearch_boa_offset_applied=False), 0),
        (lambda: changed(ES, s2_processing_baseline="04.00", earthsearch_boa_offset_applied=False), -1000),
        (lambda: changed(ES, bucket=MIRROR), 0),
        (lambda: changed(PC, s2_processing_baseline="03.00"), 0),
        (lambda: changed(PC, s2_processing_baseline="04.00"), -1000),
        (lambda: changed(PC, s2_processing_baseline="05.11"), -1000),
        (lambda: changed("cdse_v1_S2B_T36NYH", processing_version="02.14"), 0),
        # Taken from the product's name.
        (lambda: changed("cdse_v1_S2B_T36NYH", processing_version=None), -1000),
        # An old acquisition reprocessed for Collection 1: not the date decides.
        (lambda: item("cdse_v1_S2B_T36NYH"), -1000),
        (lambda: changed(ES_C1, bucket=("e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com", "mirror")), -1000),
    ],
)
def test_offsets_follow_place_collection_and_baseline(one: Callable[[], dict[str, Any]], offset: int) -> None:
    assert offsets(one()) == {offset}


def test_the_jp2_of_earth_search_keep_the_offset_that_its_cogs_have_lost() -> None:
    both = item(ES)
    assert offsets(both) == {0}
    originals = {**both, "assets": {key: value for key, value in both["assets"].items() if key.endswith("-jp2")}}
    assert offsets(originals) == {-1000}
    mixed = copy.deepcopy(both)
    del mixed["assets"]["red"]
    scene = scene_from_item(mixed, "/data/item.json")
    assert (scene.assets["B04"].offset_dn, scene.assets["B03"].offset_dn) == (-1000, 0)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lambda: changed(ES, s2_processing_baseline="99.99"), "baseline 99.99"),
        (lambda: changed(ES, s2_processing_baseline="06.00"), "baseline 06.00"),
        (lambda: changed(ES, earthsearch_boa_offset_applied=None), "boa_offset_applied absent"),
        (lambda: changed(ES, bucket=MIRROR, earthsearch_boa_offset_applied=None), "bucket none known"),
        (lambda: {**item(ES), "collection": "my-mosaics"}, "collection my-mosaics"),
        (lambda: changed(PC, s2_processing_baseline="04.00", bucket=("sentinel2l2a01", "another")), "bucket another"),
        (
            lambda: changed(
                PC,
                s2_processing_baseline=None,
                s2_product_uri="S2A_MSIL2A_20230824T100031_N9999_R122_T06VVN_20240101T000000",
            ),
            "baseline 99.99",
        ),
        (lambda: changed(PC, s2_processing_baseline=None, s2_product_uri=None), "processing baseline is unknown"),
    ],
)
def test_unknown_radiometry_is_an_error_that_names_the_item(one: Callable[[], dict[str, Any]], said: str) -> None:
    with pytest.raises(CatalogError) as caught:
        offsets(one())
    assert said in str(caught.value)
    assert one()["id"] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_raster_offset_that_contradicts_the_baseline_is_an_error() -> None:
    one = item("cdse_v1_S2C_T55WFR")
    one["assets"]["B04_10m"]["raster:offset"] = 0
    with pytest.raises(CatalogError, match=r"B04_10m.*raster offset 0, expected a raster offset of -0\.1"):
        offsets(one)


def test_a_scale_other_than_expected_is_an_error() -> None:
    one = item("cdse_v1_S2C_T55WFR")
    one["assets"]["B04_10m"]["raster:scale"] = 0.001
    with pytest.raises(CatalogError, match=r"B04_10m: its raster scale is 0\.001"):
        offsets(one)


# ---- items that are not understood ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"geometry": None}, "geometry cannot be read"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "no polygon"),
        ({"assets": {}}, "no file of B01, B02"),
        ({"properties": {"datetime": None}}, "tile"),
    ],
)
def test_a_broken_item_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CatalogError, match=said) as caught:
        scene_from_item({**item(ES), "id": "the-item", **change}, "/data/item.json")
    assert "the-item" in str(caught.value)


def test_a_missing_band_names_item_band_and_what_is_there() -> None:
    one = item("cdse_v1_S2C_T55WFR")
    del one["assets"]["B01_60m"]  # B01_20m is still there, but resampled
    with pytest.raises(
        CatalogError, match=r"T55WFR.*no file of B01 at native resolution among the assets AOT_10m, .*B01_20m"
    ):
        scene_from_item(one, "/data/item.json")


def test_a_crs_that_is_not_the_tiles_is_an_error() -> None:
    one = item(ES)
    one["properties"]["proj:epsg"] = 32632
    with pytest.raises(CatalogError, match="EPSG:32632, but tile 31UDQ lies in EPSG:32631"):
        scene_from_item(one, "/data/item.json")


# ---- tiles ----------------------------------------------------------------------------------------------------------


def test_tiles_lie_where_their_letters_say() -> None:
    for one in every_item():
        scene = scene_from_item(one, "/data/item.json")
        # Footprints have straight edges between their corners, tiles bent ones.
        assert tile_footprint(scene.tile).buffer(0.02).covers(scene.footprint), scene.id
        assert tile_footprint(scene.tile).area < 10
    with pytest.raises(CatalogError, match="zone 48 has no column A"):
        tile_footprint("48QAE")


# ---- sources --------------------------------------------------------------------------------------------------------


def test_a_static_catalogue_on_disk() -> None:
    scenes = find_scenes(config({"static_catalog": str(ARCHIVE / "catalog.json")}))
    assert [scene.id for scene in scenes] == [
        "S2B_48QUD_20200223_0_L2A",
        "S2B_48QUE_20200223_0_L2A",
        "S2B_43RCP_20200604_0_L2A",
        "S2B_43RCP_20200813_0_L2A",
        "S2A_33NZA_20220706_0_L2A",
    ]
    for scene in scenes:
        assert {asset.offset_dn for asset in scene.assets.values()} == {-1000 if scene.tile == "33NZA" else 0}
        assert all(Path(asset.href).is_file() for asset in scene.assets.values())
        assert (scene.scl is None) == (scene.tile == "43RCP")
    assert scenes[0].datetime == datetime(2020, 2, 23, 3, 38, tzinfo=UTC)
    assert find_scenes(config({"static_catalog": str(ARCHIVE)})) == scenes


@pytest.mark.parametrize(
    ("area", "days", "found"),
    [
        ({"tiles": ["48QUE"]}, "2020-02-01/2020-02-29", {"48QUE"}),
        ({"bbox": [103.6, 17.8, 103.8, 17.9]}, "2020-02-01/2020-02-29", {"48QUD"}),
        ({"bbox": [103.6, 17.8, 103.8, 18.0]}, "2020-02-23/2020-02-23", {"48QUD", "48QUE"}),
        (None, "2020-03-01/2020-08-12", {"43RCP"}),
    ],
)
def test_scenes_are_those_of_area_and_period(area: dict[str, Any] | None, days: str, found: set[str]) -> None:
    scenes = find_scenes(config({"static_catalog": str(ARCHIVE)}, area, days))
    assert {scene.tile for scene in scenes} == found


def test_nothing_found_says_what_was_searched_and_why_items_were_dropped() -> None:
    source = {"static_catalog": str(ARCHIVE), "max_cloud_cover": 1}
    with pytest.raises(CatalogError) as caught:
        find_scenes(config(source, {"bbox": [70, 30, 75, 31]}, "2020-06-01/2022-07-31"))
    assert str(caught.value) == (
        f"no scene found: static_catalog {ARCHIVE}, collection sentinel-2-l2a, period 2020-06-01 to 2022-07-31, "
        "area 70.0000, 30.0000 to 75.0000, 31.0000: 5 items seen: 2 above 1 % cloud, 2 outside the period, "
        "1 outside the area"
    )
    with pytest.raises(CatalogError, match=r"tiles 01CAA.*5 items seen: 5 of other tiles"):
        find_scenes(config({"static_catalog": str(ARCHIVE)}, {"tiles": ["01CAA"]}))
    with pytest.raises(CatalogError, match=r"collection other, .*5 in collection 'sentinel-2-l2a'"):
        find_scenes(config({"static_catalog": str(ARCHIVE), "collection": "other"}))


def test_scenes_without_the_bands_are_no_scenes() -> None:
    source = {"static_catalog": str(SHARED / "data" / "overviews_120m" / "catalog.json")}
    with pytest.raises(CatalogError, match=r"no scene has all bands: .*33TW.* no file of B01, B05.* \(and 3 more"):
        find_scenes(config(source))
    scenes = find_scenes(config(source), bands=("B02", "B03", "B04", "B08"))
    assert [(scene.tile, scene.datetime.day) for scene in scenes] == [
        ("33TWM", 15),
        ("33TWL", 15),
        ("33TWM", 18),
        ("33TWL", 18),
    ]
    assert scenes[0].assets["B02"].gsd_m == 120


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A copy of the archive's JSON, to be damaged."""
    shutil.copytree(ARCHIVE, tmp_path / "archive", ignore=shutil.ignore_patterns("*.tif"))
    return tmp_path / "archive"


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_a_scene_that_lacks_a_band_is_left_out_with_a_warning(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = next(archive.glob("items/S2B_48QUE*/*.json"))
    edit(file, lambda one: one["assets"].pop("rededge1"))
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        scenes = find_scenes(config({"static_catalog": str(archive)}))
    assert {scene.tile for scene in scenes} == {"48QUD", "43RCP", "33NZA"}
    assert "left out: item S2B_48QUE_20200223_0_L2A: no file of B05" in caplog.text


def test_a_broken_link_is_named_with_both_ends(archive: Path) -> None:
    next(archive.glob("items/S2B_48QUE*/*.json")).unlink()
    with pytest.raises(CatalogError) as caught:
        find_scenes(config({"static_catalog": str(archive)}))
    assert "S2B_48QUE_20200223_0_L2A.json (linked from" in str(caught.value)
    assert "collection.json): cannot be read: No such file" in str(caught.value)


def test_a_catalogue_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text("{")
    with pytest.raises(CatalogError, match="is not JSON"):
        find_scenes(config({"static_catalog": str(tmp_path)}))
    (tmp_path / "catalog.json").write_text("[]")
    with pytest.raises(CatalogError, match="is not a STAC document"):
        find_scenes(config({"items": str(tmp_path / "catalog.json")}))
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "links": []}')
    with pytest.raises(CatalogError, match="found a Catalog, expected a STAC item collection"):
        find_scenes(config({"items": str(tmp_path / "catalog.json")}))
    with pytest.raises(CatalogError, match="0 items seen"):
        find_scenes(config({"static_catalog": str(tmp_path)}))
    with pytest.raises(CatalogError, match=r"missing\.json: cannot be read"):
        find_scenes(config({"static_catalog": str(tmp_path / "missing.json")}))


def test_a_catalogue_that_links_in_a_circle_ends(archive: Path) -> None:
    def back(collection: dict[str, Any]) -> None:
        collection["links"].append({"rel": "child", "href": "./catalog.json"})

    edit(archive / "collection.json", back)
    assert len(find_scenes(config({"static_catalog": str(archive)}))) == 5


def test_a_file_of_items() -> None:
    file = ITEMS / "planetarycomputer_itemcollection_site2-2020_jun_jul-35MNM_N0212.geojson"
    scenes = find_scenes(config({"items": str(file)}))
    assert len(scenes) == 13
    assert scenes == sorted(scenes, key=lambda scene: scene.datetime)
    assert {scene.tile for scene in scenes} == {"35MNM"}
    clear = find_scenes(config({"items": str(file), "max_cloud_cover": 1}))
    assert all(scene.cloud_cover <= 1 for scene in clear)
    assert 0 < len(clear) < 13
    assert len(find_scenes(config({"items": str(file)}, days="2020-06-01/2020-06-11"))) == 3


def test_of_an_acquisition_in_two_collections_one_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": every_item()}))
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        scenes = find_scenes(config({"items": str(file), "collection": None}))
    twice = [scene for scene in scenes if scene.tile == "24MXV"]
    assert [scene.collection for scene in twice] == ["sentinel-2-l2a"]
    assert "left out: S2B_T24MXV_20250731T130245_L2A" in caplog.text
    assert len({(scene.tile, scene.datetime) for scene in scenes}) == len(scenes)
    shuffled = list(reversed(every_item()))
    file.write_text(json.dumps({"type": "FeatureCollection", "features": shuffled}))
    assert [s.id for s in find_scenes(config({"items": str(file), "collection": None}))] == [s.id for s in scenes]


def test_a_reprocessed_product_replaces_the_first(tmp_path: Path) -> None:
    first, again = item(ES), item(ES)
    again["id"] += "_again"
    again["properties"]["s2:processing_baseline"] = "05.10"
    again["properties"]["updated"] = "2020-01-01T00:00:00Z"
    half = item(ES)
    half["id"] = "S2A_31UDQ_20230617_1_L2A"
    half["geometry"] = {"type": "Polygon", "coordinates": [[[2.6, 49], [2.9, 49], [2.9, 48.7], [2.6, 49]]]}
    first["geometry"] = again["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[2, 49], [2.5, 49], [2.5, 48.7], [2, 49]]],
    }
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [first, again, half]}))
    # The other half of the tile, received elsewhere, is no duplicate.
    assert [scene.id for scene in find_scenes(config({"items": str(file)}))] == [again["id"], half["id"]]


def test_level_1c_is_left_out(tmp_path: Path) -> None:
    one = item(ES)
    one["properties"]["s2:product_type"] = "S2MSI1C"
    file = tmp_path / "item.json"
    file.write_text(json.dumps(one))
    with pytest.raises(CatalogError, match="1 items seen: 1 of type S2MSI1C"):
        find_scenes(config({"items": str(file)}))


# ---- servers --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def stac_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real STAC API on loopback with the items of Planetary Computer and the local archive, pages and all."""
    program = Path(sys.executable).with_name("rustac")
    if not program.is_file():
        pytest.skip("rustac is not installed")
    features = [one for one in every_item() if one.get("collection") == "sentinel-2-l2a"]
    for k in range(150):  # more than a page, in another month
        features.append(copy.deepcopy(item(PC)))
        features[-1]["id"] += f"_{k}"
        features[-1]["properties"]["datetime"] = f"2018-06-01T21:{k // 60:02d}:{k % 60:02d}Z"
        features[-1]["properties"]["s2:product_uri"] = None
        features[-1]["properties"]["eo:cloud_cover"] = k % 100
    file = tmp_path_factory.mktemp("api") / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [program, "serve", "--addr", address, "--create-collections", file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(10)


def test_a_stac_api_is_searched(stac_api: str) -> None:
    scenes = find_scenes(config({"stac_api": stac_api}, {"bbox": [26.5, -16, 28.5, -7]}, "2020-06-01/2020-07-31"))
    assert len(scenes) == 9 + 13 - 1
    assert all(scene.provider == "planetary-computer" for scene in scenes)
    one_day = config({"stac_api": stac_api}, {"bbox": [26.5, -16, 28.5, -12]}, "2020-06-06/2020-06-06")
    assert {scene.tile for scene in find_scenes(one_day)} == {"35LNG", "35LNF", "35LNE", "35LND"}


def test_a_stac_api_without_query_extension_is_filtered_here(stac_api: str) -> None:
    source = {"stac_api": stac_api, "max_cloud_cover": 1}
    scenes = find_scenes(config(source, {"tiles": ["35MNM", "35LNK"]}, "2020-06-01/2020-07-31"))
    assert {scene.tile for scene in scenes} == {"35MNM", "35LNK"}
    assert all(scene.cloud_cover <= 1 for scene in scenes)


def test_all_pages_are_read(stac_api: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "difffusr.catalog"):
        find_scenes(config({"stac_api": stac_api}, days="2018-06-01/2018-06-30"))
    assert "of 150 items" in caplog.text


def test_a_stac_api_that_has_nothing_says_so(stac_api: str) -> None:
    with pytest.raises(CatalogError, match=r"no scene found: stac_api http://127.*0 items seen$"):
        find_scenes(config({"stac_api": stac_api}, {"bbox": [0, 0, 1, 1]}))
    with pytest.raises(CatalogError):
        find_scenes(config({"stac_api": stac_api, "collection": "unknown"}))


def test_a_stac_api_across_180_degrees_is_asked_on_both_sides(stac_api: str) -> None:
    scenes = find_scenes(config({"stac_api": stac_api}, {"bbox": [170, 50, -140, 70]}, "2019-01-01/2019-12-31"))
    assert {scene.tile for scene in scenes} == {"60VUK", "06VVN"}


def test_an_unreachable_stac_api_is_one_line() -> None:
    address = f"http://user:SECRET@127.0.0.1:{free_port()}"
    with pytest.raises(CatalogError, match=r"stac_api http://127\.0\.0\.1:\d+: cannot be reached") as caught:
        find_scenes(config({"stac_api": address}))
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; every path is answered with 503 the first `refusals` times."""

    refusals = 0
    asked: dict[str, int] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        if self.asked[self.path] <= self.refusals:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def files_behind_http(archive: Path) -> Iterator[tuple[str, type[Handler], Path]]:
    handler = type("OneHandler", (Handler,), {"asked": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(archive)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler, archive
    server.shutdown()
    server.server_close()


def test_a_static_catalogue_behind_http(files_behind_http: tuple[str, type[Handler], Path]) -> None:
    url, handler, _ = files_behind_http
    handler.refusals = 1  # a server that is busy for a moment
    scenes = find_scenes(config({"static_catalog": f"{url}/catalog.json"}, days="2020-01-01/2020-12-31"))
    assert len(scenes) == 4
    assert scenes[0].assets["B02"].href == f"{url}/items/{scenes[0].id}/B02.tif"


def test_a_link_that_stays_broken_is_named(files_behind_http: tuple[str, type[Handler], Path]) -> None:
    url, _, archive = files_behind_http
    next(archive.glob("items/S2B_48QUE*/*.json")).unlink()
    with pytest.raises(CatalogError, match=r"48QUE.*\(linked from .*collection\.json\): cannot be read: HTTP 404"):
        find_scenes(config({"static_catalog": f"{url}/catalog.json"}))


def test_what_is_no_stac_api_is_told_apart(files_behind_http: tuple[str, type[Handler], Path]) -> None:
    url, _, _ = files_behind_http
    for address in (f"{url}/catalog.json", f"{url}/collection.json", url, f"{url}/nothing"):
        with pytest.raises(CatalogError, match=r"stac_api http://127.*source\.static_catalog") as caught:
            find_scenes(config({"stac_api": address}))
        assert "\n" not in str(caught.value)
