"""Items damaged at random end in a scene of the right radiometry or in one line, never in anything else."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from stac_items import ITEMS, config, every_item, made_item

from difffusr.pipeline.geo.zones import to_zone
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.item import Asset, Scene, describe
from difffusr.pipeline.scenes.search import search_scenes

#: One item of each kind, and its place.
WHOLE = [made_item(), made_item(tile="01KAB", baseline="02.14"), *(every_item()[:25] if ITEMS.is_dir() else [])]

ANY_SOURCE = config(items="/d/i.json", collection=None)

#: What stands in the place of a value.
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 0.1, -0.1, 1e-4, 1e308, -1e308, 10**400, math.nan, math.inf, "", "x", "0", "-0.1",
    "1C", "S2MSI1C", "L1C", "99.33", "05.09", "02.14", "06.00", "00.00", "٠٥.٠٩", "\ud800", "\x00", "a\nb", "x" * 5000,
    [], [[]], [None], {}, {"type": "Polygon"}, "http://[", "file:///etc/passwd", "s3://sentinel-cogs/B04.tif",
    "EPSG:3857", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "MGRS-61ZZZ", "sentinel-2-l1c", "image/jp2",
    "image/tiff",
]  # fmt: skip


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, one in inner for found in paths_in(one, (*path, key)))]


#: Fields that decide on the radiometry, and those that decide on anything: each come as often as all others together.
RADIOMETRY = re.compile(r"baseline|product|offset|scale|version|level|^collection$|^id$|raster|href|^type$")
DECIDING = re.compile(r"datetime|proj:|^geometry$|grid|mgrs|gsd|eo:cloud|nodata")


def places(item: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    everywhere = [path for path in paths_in(item) if path[0] not in ("links", "stac_extensions")]
    few = [path for path in everywhere if not isinstance(path[-1], int)]
    return [everywhere, *([path for path in few if kind.search(path[-1])] for kind in (DECIDING, RADIOMETRY))]


PLACES = [places(item) for item in WHOLE]


def damage(draw: st.DrawFn, item: dict[str, Any], paths: list[tuple[Any, ...]]) -> None:
    """Drop, retype, nest, enlarge or relabel one field."""
    path = draw(st.sampled_from(paths))
    parent: Any = item
    try:
        for key in path[:-1]:
            parent = parent[key]
        last, value = path[-1], parent[path[-1]]
    except (LookupError, TypeError):
        return  # what was damaged before has no such field
    if isinstance(parent, str):
        return
    how = draw(st.sampled_from(["drop", "put", "put", "wrap", "nest", "enlarge", "relabel"]))
    if how == "drop":
        del parent[last]
    elif how == "put":
        parent[last] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    elif how == "wrap":
        parent[last] = draw(st.sampled_from([[value], {"value": value}, str(value), [value, value]]))
    elif how == "nest":
        for _ in range(60):
            value = [value]
        parent[last] = value
    elif how == "enlarge":
        enlarged = {str: lambda: value * 40, int: lambda: value * 10**30, float: lambda: value * 1e30}
        parent[last] = enlarged.get(type(value), lambda: [value] * 3)()
    elif isinstance(value, str):
        parent[last] = value.replace("2A", "1C").replace("N05", "N02").replace("N02", "N05", 1)


KEEP = object()


def restate(draw: st.DrawFn, item: dict[str, Any]) -> None:
    """State other baselines, flags, offsets, collections and hosts, that fit together or do not."""

    def one_of(*values: Any) -> Any:
        return draw(st.sampled_from([KEEP, *values]))

    said, assets = item["properties"], item["assets"].values()
    baseline = one_of("02.14", "03.01", "04.00", "05.11", "06.00", "99.33", "00.00", "5.09", None)
    if baseline is not KEEP:
        key = "processing:version" if "processing:version" in said else "s2:processing_baseline"
        said[key] = baseline
        if isinstance(baseline, str) and draw(st.booleans()):  # the product's name, too
            number = f"_N{baseline.replace('.', '').zfill(4)}_"
            item["id"] = re.sub(r"_N[0-9]{4}_", number, item["id"])
            said["s2:product_uri"] = re.sub(r"_N[0-9]{4}_", number, str(said.get("s2:product_uri", "x")))
    for key in ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"):
        flag = one_of(True, False, None, "false", 0)
        if flag is not KEEP:
            said[key] = flag
    if (offset := one_of(-0.1, 0, 0.1, None)) is not KEEP:
        for asset in assets:
            asset.pop("raster:bands", None)
            asset["raster:offset"] = offset
    if (collection := one_of("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-2-l1c", "mine", None)) is not KEEP:
        item["collection"] = collection
    if (
        host := one_of("https://sentinel-cogs.s3.us-west-2.amazonaws.com", "s3://eodata", "https://a.example")
    ) is not KEEP:
        for asset in assets:
            asset["href"] = f"{host}/{asset['href'].rpartition('/')[2]}"


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    number = draw(st.integers(0, len(WHOLE) - 1))
    item = copy.deepcopy(WHOLE[number])
    if restated := draw(st.booleans()):
        restate(draw, item)
    for _ in range(draw(st.integers(0 if restated else 1, 3))):
        damage(draw, item, PLACES[number][draw(st.integers(0, 2))])
    return item


# ---- what is documented, told again ---------------------------------------------------------------------------------


def baselines(item: dict[str, Any]) -> list[str]:
    """What the item says of its processing baseline, the most important first."""
    said = item["properties"]
    keys = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
    found = [
        said[key]
        for key in keys
        if isinstance(said.get(key), str) and re.fullmatch("[0-9][0-9][.][0-9][0-9]", said[key])
    ]
    name = next(
        (str(said[k]) for k in ("s2:product_uri", "sentinel:product_id", "s2:product_title") if said.get(k)), item["id"]
    )
    if match := re.match("S2[ABCD]_MSIL2A_[0-9]{8}T[0-9]{6}_N([0-9][0-9])([0-9][0-9])_", name):
        found.append(f"{match[1]}.{match[2]}")
    return found


def right_offset(item: dict[str, Any], asset: Asset) -> int | None:
    """What is to be added to an asset's DN by the rules of the providers; None where that is not certain."""
    said, collection = baselines(item), str(item.get("collection") or "")
    majors = [int(text[:2]) for text in said]
    old, new = any(1 <= major <= 3 for major in majors), any(major in (4, 5) for major in majors)
    if not said or (old and new):
        return None
    if 1 <= majors[0] <= 3:
        return 0
    host, cog = urlsplit(asset.href).netloc, asset.driver == "GTiff"
    product_file = re.search(r"/IMG_DATA/R\d0m/[^/]+_B\w\w_\d0m\.(tif|jp2)$", urlsplit(asset.href).path)
    as_produced = (
        ("sentinel-s2-l2a" in host and not cog)
        or ("e84-earth-search-sentinel-data" in host and cog and collection == "sentinel-2-c1-l2a")
        or ("sentinel2l2a01" in host and cog and collection == "sentinel-2-l2a")
        or (host.startswith("eodata") and not cog)
    )
    known = ("sentinel-cogs", "sentinel-s2-l2a", "e84-earth", "sentinel2l2a01", "eodata")
    elsewhere = not any(name in host for name in known)
    as_produced |= elsewhere and (bool(product_file) or not cog or collection == "sentinel-2-c1-l2a")
    if majors[0] not in (4, 5):
        return -1000 if as_produced and asset_offset(item, asset) == -0.1 else None
    if as_produced:
        return -1000
    said_flags = [item["properties"].get(f"{name}:boa_offset_applied") for name in ("earthsearch", "sentinel")]
    flags = {flag for flag in said_flags if isinstance(flag, bool)}
    if ("sentinel-cogs" in host or elsewhere) and len(flags) == 1:
        return 0 if flags == {True} else -1000
    return None


def asset_offset(item: dict[str, Any], asset: Asset) -> Any:
    """The offset that the item declares for a file."""
    for said in item["assets"].values():
        if isinstance(said, dict) and str(said.get("href", "")).rpartition("/")[2] == asset.href.rpartition("/")[2]:
            bands = said.get("raster:bands")
            return said.get("raster:offset", bands[0].get("offset") if isinstance(bands, list) else None)
    return None


def says_level_1c(item: dict[str, Any]) -> bool:
    said = item["properties"]
    keys = ("s2:product_type", "product:type", "s2:product_uri", "processing:level", "sentinel:product_id")
    return any("1C" in str(value) for value in (item["id"], *(said.get(key) for key in keys)))


def check(item: dict[str, Any], scene: Scene) -> None:
    """A scene is of its item's radiometry, and fit to be planned, written and sent to workers."""
    assert not says_level_1c(item)
    for band, asset in scene.assets.items():
        assert asset.offset_dn == right_offset(item, asset), (band, asset)
    assert pickle.loads(pickle.dumps(scene)).version_key() == scene.version_key()
    texts = [
        scene.id,
        scene.collection,
        scene.product_uri,
        scene.created,
        scene.sequence,
        scene.baseline,
        describe(scene),
    ]
    json.dumps([*texts, *(asset.href for asset in scene.assets.values())], ensure_ascii=False).encode()
    assert 0 <= scene.cloud_cover <= 100
    assert scene.footprint.is_valid
    assert all(map(math.isfinite, to_zone(scene.footprint, scene.epsg).bounds))
    assert all(0 < asset.gsd_m <= 1000 for asset in scene.assets.values())


@settings(max_examples=500, deadline=None, derandomize=True)
@given(item=damaged())
def test_a_damaged_item_is_a_right_scene_or_one_line(item: dict[str, Any]) -> None:
    before = copy.deepcopy(item)
    with patch("difffusr.pipeline.scenes.search.items_of", lambda search: iter([(item, "/d/i.json")])):
        try:
            scenes, said = search_scenes(ANY_SOURCE).scenes, ""
        except CatalogError as error:
            scenes, said = [], str(error)
    assert "\n" not in said
    assert len(scenes) == 1 or re.search("left out by reason: 1 |items seen: 1 ", said), said
    for scene in scenes:
        check(before, scene)


def test_the_items_are_scenes_before_they_are_damaged() -> None:
    with patch("difffusr.pipeline.scenes.search.items_of", lambda search: ((one, "/d/i.json") for one in WHOLE)):
        found = search_scenes(ANY_SOURCE)
    assert found.left_out.count == 0
    whole = {(item["collection"], item["id"]): item for item in WHOLE}
    assert len(found.scenes) > len(WHOLE) / 2  # of several copies of an acquisition one is taken
    for scene in found.scenes:
        check(whole[scene.collection, scene.id], scene)
