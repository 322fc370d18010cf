"""Every provider's items become scenes with the right files and properties, or are refused for a stated reason."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from stac_items import ES, ITEMS, item, needs_items

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.geo.globe import tile_footprint
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.scenes.fields import cloud_cover_of, nodata_of, snow_cover_of, sun_elevation_of
from difffusr.pipeline.scenes.item import describe, scene_from_item

pytestmark = needs_items


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


def test_an_href_from_the_root_lies_on_its_items_server(tmp_path: Path) -> None:
    mine = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    mine["assets"]["red"]["href"] = "/d/a/B04.tif"
    for base in ("https://host.example/x/y/item.json", "http://127.0.0.1:8080/item", "s3://bucket/x/item.json"):
        scene = scene_from_item(mine, base, remote=base.startswith("https"))
        assert scene.assets["B04"].href == "/".join(base.split("/")[:3]) + "/d/a/B04.tif"
    assert scene_from_item(mine, "/data/item.json").assets["B04"].href == "/d/a/B04.tif"
    # A server on loopback is this machine, and may name its files.
    file = tmp_path / "B04.tif"
    file.touch()
    mine["assets"]["red"]["href"] = str(file)
    assert scene_from_item(mine, "http://127.0.0.1:8080/item").assets["B04"].href == str(file)
    there = scene_from_item(mine, "https://host.example/item", remote=True)
    assert there.assets["B04"].href == f"https://host.example{file}"


@pytest.mark.parametrize("href", ["file:///etc/passwd.tif", "FILE:///x.tif", "file:/x.tif"])
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


@pytest.mark.parametrize(
    ("name", "cloud", "nodata", "snow", "sun"),
    [
        ("antimeridian_", 61.174244, 0.490543, 34.175643, 44.1254666279097),
        ("cdse_v1_S2C_T55WFR", 36.08, 0, 8.936413, 43.2860100225997),
        ("earthsearch_v0_sentinel-s2-l2a-cogs_S2A_28QCH", 2.36, None, None, None),
        ("earthsearch_v1_sentinel-2-c1-l2a_S2B_T20EPT", 26.02542, 98.002911, 0, 4.164002081708503),
        ("earthsearch_v1_sentinel-2-l2a_S2A_32TPS", 31.735489, 0, 10.053248, 63.2305935349323),
        ("planetarycomputer_S2A_T60VUK", 56.297088, 87.684971, 0, 90 - 81.3310068623942),
        ("stactools_S2B_T33XWJ", 98.944211, 98.441625, 1.039183, 13.471380977263905),
    ],
)
def test_each_providers_properties_are_found(
    name: str, cloud: float, nodata: float | None, snow: float | None, sun: float | None
) -> None:
    one = item(name)
    assert (cloud_cover_of(one), nodata_of(one), snow_cover_of(one), sun_elevation_of(one)) == (
        cloud,
        nodata,
        snow,
        sun,
    )


def test_the_same_moment_is_spelt_the_same() -> None:
    one = item("earthsearch_v1_sentinel-2-l2a_S2A_31UDQ")
    keys = set()
    for text in ("2023-06-17T21:03:52.4Z", "2023-06-17T21:03:52.400Z", "2023-06-17T21:03:52.400000+00:00"):
        one["properties"]["updated"] = text
        keys.add(scene_from_item(one, "/data/item.json").version_key())
    assert len(keys) == 1


# ---- items that are not understood -----------------------------------------------------------------------------------


def test_a_scale_other_than_expected_is_an_error() -> None:
    one = item("cdse_v1_S2C_T55WFR")
    one["assets"]["B04_10m"]["raster:scale"] = 0.001
    with pytest.raises(CatalogError, match=r"B04_10m: its raster scale is 0\.001"):
        scene_from_item(one, "/data/item.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"geometry": None}, "geometry cannot be read"),
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "not a polygon"),
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
