"""Whatever a user can get wrong ends in one line that says what, where and what to do, and costs no finished work."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
import yaml
import zarr
from shapely.geometry import Point, box

from difffusr.kernels.weights.packaged import shipped


def said_once(ended, code: int, *fragments: str) -> None:
    """One line on standard error, no traceback, the exit code, and the fragments in it."""
    assert ended.code == code, ended.err + ended.out
    assert "Traceback" not in ended.err + ended.out
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, ended.err
    for fragment in fragments:
        assert fragment in errors[0], (fragment, errors[0])


# ---- what is fed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a row is tried: a folder with a finished run, `run.yaml` beside its cube and staging folder.

    `config` is the finished run's configuration, to be changed; `archive` a copy of the world's catalogue, if the row
    damages it.
    """

    folder: Path
    config: dict[str, Any]

    @property
    def archive(self) -> Path:
        return self.folder / "archive"

    def set(self, key: str, value: Any) -> None:
        """Give a dotted key a value; an area or a source replaces the one there is."""
        *path, last = key.split(".")
        section = self.config
        for name in path:
            if not isinstance(section.get(name), dict):
                section[name] = {}
            section = section[name]
        section[last] = value

    def files(self, band: str) -> list[Path]:
        """A band's file of every scene."""
        return sorted(self.archive.glob(f"items/*/{band}.tif"))

    def items(self) -> list[Path]:
        """The scenes' documents."""
        return sorted(self.archive.glob("items/*/*.json"))


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        id: names it in the report.
        code, says: the exit code, and fragments that the one line must hold.
        command: words after `difffusr`; CONFIG stands for the configuration's path, FOLDER for its folder.
        change: dotted keys of the finished run's configuration, and their values. "area" and "source" whole.
        text: what stands in the configuration's file instead.
        damage: what happens to a copy of the world's catalogue, which the configuration then names.
        prepare: what else is done to the place before.
    """

    id: str
    says: tuple[str, ...]
    code: int = 2
    command: str = "plan CONFIG"
    change: dict[str, Any] = field(default_factory=dict)
    text: str | bytes | None = None
    damage: Callable[[Place], object] | None = None
    prepare: Callable[[Place], object] | None = None


def text(name: str, content: str | bytes, *says: str) -> Row:
    """A file that is no configuration."""
    return Row(name, ("run.yaml", *says), text=content)


def value(name: str, key: str, content: Any, *says: str) -> Row:
    """One key of the configuration; the line must name it."""
    return Row(name, (key, *says), change={key: content})


def area(name: str, content: dict[str, Any], *says: str, prepare: Callable[[Place], object] | None = None) -> Row:
    """Another area."""
    return Row(name, says, change={"area": content}, prepare=prepare)


def source(name: str, damage: Callable[[Place], object], *says: str, **more: Any) -> Row:
    """A catalogue that is not what it should be."""
    return Row(name, says, code=1, damage=damage, **more)


def raster(name: str, damage: Callable[[Place], object], *says: str) -> Row:
    """Files that are not what they should be, met by reading them again for the finished cube."""
    return Row(name, says, code=1, command="verify CONFIG", damage=damage)


# ---- damage ---------------------------------------------------------------------------------------------------------


def write(name: str, content: str | bytes) -> Callable[[Place], object]:
    """A file in the folder."""
    data = content.encode() if isinstance(content, str) else content
    return lambda place: (place.folder / name).write_bytes(data)


def each_item(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], object]:
    """Every scene's document changed."""

    def damage(place: Place) -> None:
        for path in place.items():
            item = json.loads(path.read_text())
            change(item)
            path.write_text(json.dumps(item))

    return damage


def without(*keys: str) -> Callable[[Place], object]:
    """Every scene's document without a key."""

    def change(item: dict[str, Any]) -> None:
        for key in keys:
            inside = item
            *path, last = key.split("/")
            for name in path:
                inside = inside[name]
            inside.pop(last, None)

    return each_item(change)


def having(key: str, content: Any) -> Callable[[Place], object]:
    """Every scene's document with another value."""

    def change(item: dict[str, Any]) -> None:
        *path, last = key.split("/")
        for name in path:
            item = item[name]
        item[last] = content

    return each_item(change)


def document(name: str, content: str | bytes) -> Callable[[Place], object]:
    """A document of the catalogue replaced."""
    data = content.encode() if isinstance(content, str) else content
    return lambda place: (place.archive / name).write_bytes(data)


def each_file(band: str, change: Callable[[Path], object]) -> Callable[[Place], object]:
    """A band's file of every scene changed."""

    def damage(place: Place) -> None:
        for path in place.files(band):
            change(path)

    return damage


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def garbled(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def rewritten(**profile: Any) -> Callable[[Path], None]:
    """A file with the same pixels, and otherwise another."""

    def change(path: Path) -> None:
        with rasterio.open(path) as old:
            kept = {"driver": "GTiff", "crs": old.crs, "transform": old.transform, "nodata": old.nodata}
            kept |= {"width": old.width, "height": old.height, "count": 1, "dtype": old.dtypes[0]}
            data = old.read(1)
        new = {**kept, **profile}
        if callable(new["transform"]):
            new["transform"] = new["transform"](kept["transform"])
        if "value" in new:
            data = np.full_like(data, new.pop("value"), new["dtype"])
        with rasterio.open(path, "w", **new) as file:
            for band in range(1, new["count"] + 1):
                file.write(data.astype(new["dtype"]), band)

    return change


def moved(metres: float) -> Callable[[Path], None]:
    return rewritten(transform=lambda t: rasterio.Affine(t.a, 0, t.c + metres, 0, t.e, t.f))


def scaled(factor: float) -> Callable[[Path], None]:
    return rewritten(transform=lambda t: rasterio.Affine(t.a * factor, 0, t.c, 0, t.e * factor, t.f))


def vector(name: str, geometry: Any, crs: str | None = "EPSG:4326", **layers: Any) -> Callable[[Place], object]:
    """A vector file in the folder; `layers` are more of them."""

    def prepare(place: Place) -> None:
        for layer, shape in {"area": geometry, **layers}.items():
            frame = gpd.GeoDataFrame({"NAME": ["one"]}, geometry=[shape], crs=crs)
            frame.to_file(place.folder / name, layer=layer, engine="pyogrio")

    return prepare


class Hostile:
    """Unpickled, it would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def hostile_weights(place: Place) -> None:
    torch.save({"state_dict": {"w": torch.zeros(1)}, "hook": Hostile(place.folder / "trace")}, place.folder / "w.ckpt")
    (place.folder / "plain.pkl").write_bytes(pickle.dumps(Hostile(place.folder / "trace")))


def half_of_the_weights(place: Place) -> None:
    data = Path(shipped("small", "stage1")).read_bytes()
    (place.folder / "half.safetensors").write_bytes(data[: len(data) // 2])


def another_zarr(place: Place) -> None:
    zarr.create_group(place.folder / "other.zarr", attributes={"whose": "somebody's"}).create_array(
        "a", shape=(4,), dtype="u1"
    )


# ---- the table ------------------------------------------------------------------------------------------------------

BOX = "[west, south, east, north]"
LAUGHS = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
FAR = {"bbox": [30.0, 10.0, 30.1, 10.1]}
HTML = "<!DOCTYPE html><html><body>Please log in</body></html>"
LINE = {"type": "LineString", "coordinates": [[9, 47], [9.1, 47.1]]}


def geojson(content: Any) -> Callable[[Place], object]:
    return write("area.geojson", json.dumps(content))


def square(**more: Any) -> dict[str, Any]:
    ring = [[9, 47], [9.1, 47], [9.1, 47.1], [9, 47.1], [9, 47]]
    return {"type": "Polygon", "coordinates": [ring], **more}


AREA = {"geojson": "area.geojson"}
GPKG = {"file": "area.gpkg"}

YAML = [
    text("syntax", "area: [1, 2\nperiod: {", "line 2", "not valid YAML"),
    text("tabs", "area:\n\tbbox: [9, 47, 9.1, 47.1]\n", "line 2", "not valid YAML", "'\\t'"),
    text("duplicate key", "area: {}\nname: a\narea: {}\n", "line 3", "key 'area' is given twice"),
    text("empty file", "", "found nothing, expected the sections name, area"),
    text("comments alone", "# area:\n# period:\n", "found nothing, expected the sections"),
    text("binary file", bytes(range(256)), "not UTF-8"),
    text("null bytes", "area: \0\n", "not valid YAML"),
    text("a list", "- area\n- period\n", "found a list, expected the sections"),
    text("a word", "area", "found a str, expected the sections"),
    text("python tag", "area: !!python/object/apply:os.system ['touch trace']\n", "line 1", "not valid YAML", "tag"),
    text("too deep", "area: " + "[" * 4000, "nested too deeply"),
    text("a billion laughs", LAUGHS, "unknown key", "area: missing", "and 8 more"),
    text("a date that is none", "\nperiod: {start: 2023-02-30}\n", "period.start", "found '2023-02-30'", "(line 2)"),
    Row("file missing", ("nowhere.yaml", "No such file"), command="plan FOLDER/nowhere.yaml"),
    Row("a folder", ("cannot be read", "directory"), command="plan FOLDER"),
]

SECTIONS = [
    Row("unknown section", ("peroid: unknown key", "did you mean 'period'"), change={"peroid": {}}),
    value("unknown key", "compute.actorsmax", 2, "did you mean 'actors_max'"),
    value("section is a list", "grid", [192], "found [192], expected a section"),
    value("name", "name", "../elsewhere", "letters, digits"),
    value("chip", "grid.chip_px", 100, "found 100, expected a positive multiple of 6"),
    value("chip is text", "grid.chip_px", "many", "found 'many'"),
    value("no overlap", "grid.overlap_px", 0, "found 0, expected a positive multiple of 6"),
    value("overlap", "grid.overlap_px", 48, "less than half of grid.chip_px = 96"),
    value("shard", "grid.shard_px", 500, "a multiple of grid.chunk_px = 256"),
    value("preset", "model.preset", "huge", "'small' or 'published'"),
    value("published alone", "model.preset", "published", "model.stage1 and model.fusion", "comes without"),
    value("steps", "model.sampler_steps", 7, "divides 1000"),
    value("temperature", "model.temperature", 3, "from 0 to 2"),
    value("seed", "model.seed", -1, "from 0 to 2^63"),
    value("one sample", "model.uncertainty_samples", 1, "0 (off) or an integer from 2"),
    value("policy", "scenes.policy", "best", "'neighbours', 'clearest', 'newest'"),
    value("policy's date", "scenes.policy", "closest_to(2023-02-30)", "closest_to(2023-07-15)"),
    value("no scenes", "scenes.max_scenes", 0, "from 1 to 16"),
    value("share", "scenes.fill_until", 1.5, "from 0 to 1"),
    value("yes for a boolean", "scenes.allow_cloudy", "often", "true or false"),
    value("batch", "compute.batch", "four", "found 'four', expected an integer"),
    value("batch is true", "compute.batch", True, "found true, expected an integer"),
    value("actors", "compute.actors_min", 0, "an integer ≥ 1"),
    Row("fewer than least", ("compute.actors_max", "found 1", "≥ compute.actors_min = 2"),
        change={"compute": {"actors_min": 2, "actors_max": 1}}),
    value("part of a GPU", "compute.gpus_per_actor", 1.5, "'auto', a share from 0 to 1"),
    value("precision", "compute.precision", "float16", "'float32' or 'bfloat16'"),
    value("price", "costs.prices.gpu_hour", -1, "a number ≥ 0"),
    value("budget alone", "budget", 10, "costs.calibration"),
    value("clouds", "source.max_cloud_cover", 101, "from 0 to 100"),
    value("clouds are nan", "source.max_cloud_cover", float("nan"), "from 0 to 100"),
    value("end before start", "period.end", "2023-05-01", "not before period.start = 2023-06-01"),
    value("no date", "period.start", "yesterday", "found 'yesterday', expected a date"),
    value("a number for a date", "period.start", 20230601, "expected a date"),
    value("no end", "period", {"start": "2023-06-01"}, "period.end: missing, expected a date"),
]  # fmt: skip

AREAS = [
    area("box swapped", {"bbox": [9.1, 47.0, 9.0, 47.1]}, "area.bbox", BOX, "crosses 180"),
    area("box upside down", {"bbox": [9.0, 47.1, 9.1, 47.0]}, "area.bbox", BOX),
    area("box of no width", {"bbox": [9.0, 47.0, 9.0, 47.1]}, "area.bbox", BOX),
    area("box off the globe", {"bbox": [9.0, 47.0, 9.1, 95.0]}, "area.bbox", BOX),
    area("box in metres", {"bbox": [500000, 5280000, 510000, 5290000]}, "area.bbox", BOX, "degrees"),
    area("box of three", {"bbox": [9.0, 47.0, 9.1]}, "area.bbox", BOX),
    area("box of words", {"bbox": "9 47 9.1 47.1"}, "area.bbox", BOX),
    area("no area", {}, "area", "expected exactly one of geojson, file, bbox, tiles"),
    area("two areas", {"bbox": [9.0, 47.0, 9.1, 47.1], "tiles": ["32TMT"]}, "area", "found bbox and tiles"),
    area("tile of no zone", {"tiles": ["61TMT"]}, "area.tiles.0", "found '61TMT'", "an MGRS tile id such as 48QUE"),
    area("tile with an I", {"tiles": ["32TMT", "32TMI"]}, "area.tiles.1", "found '32TMI'"),
    area("tile of another zone's column", {"tiles": ["32TAT"]}, "area.tiles.0", "found '32TAT'"),
    area("no tiles", {"tiles": []}, "area.tiles", "a list of MGRS tile ids"),
    area("geojson missing", AREA, "area.geojson", "area.geojson: cannot be read: No such file"),
    area("geojson is a folder", {"geojson": "."}, "area.geojson", "cannot be read"),
    area("not JSON", AREA, "area.geojson", "not valid JSON", prepare=write("area.geojson", "{")),
    area("not text", AREA, "area.geojson", "not valid JSON", prepare=write("area.geojson", bytes(range(256)))),
    area("not GeoJSON", AREA, "not valid GeoJSON", "'type'", prepare=geojson({"polygon": 1})),
    area("nothing in it", AREA, "found nothing, expected a Polygon",
         prepare=geojson({"type": "FeatureCollection", "features": []})),
    area("points alone", AREA, "found Point, expected a Polygon",
         prepare=geojson({"type": "Point", "coordinates": [9, 47]})),
    area("a line", AREA, "found LineString, expected a Polygon", prepare=geojson(LINE)),
    area("a ring of two", AREA, "not valid GeoJSON",
         prepare=geojson({"type": "Polygon", "coordinates": [[[9, 47], [9.1, 47]]]})),
    area("a ring of words", AREA, "not valid GeoJSON",
         prepare=geojson({"type": "Polygon", "coordinates": [[["a", "b"], ["c", "d"], ["a", "b"]]]})),
    area("unknown CRS", AREA, "unknown CRS 'EPSG:999999'", "such as EPSG:32648",
         prepare=geojson(square(crs={"type": "name", "properties": {"name": "EPSG:999999"}}))),
    area("coordinates of another CRS", AREA, "do not fit its CRS",
         prepare=geojson({"type": "Polygon", "coordinates": [[[5e5, 5e6], [6e5, 5e6], [6e5, 6e6], [5e5, 5e6]]]})),
    area("layer of a box", {"bbox": [9.0, 47.0, 9.1, 47.1], "layer": "a"}, "area.layer", "only valid with area.file"),
    area("file missing", GPKG, "area.file", "area.gpkg", "no such file"),
    area("no vector file", GPKG, "area.file", "not a vector file", prepare=write("area.gpkg", b"SQLite, perhaps")),
    area("parquet damaged", {"file": "area.parquet"}, "not a GeoParquet file", prepare=write("area.parquet", b"PAR1")),
    area("no CRS", GPKG, "has no CRS", "ogr2ogr -a_srs", prepare=vector("area.gpkg", box(9, 47, 9.1, 47.1), None)),
    area("points in a layer", GPKG, "found Point", prepare=vector("area.gpkg", Point(9, 47))),
    area("wrong layer", {**GPKG, "layer": "lakes"}, "no layer 'lakes' (area.layer), found 'area'",
         prepare=vector("area.gpkg", box(9, 47, 9.1, 47.1))),
    area("several layers", GPKG, "found polygons in several layers", "area.layer",
         prepare=vector("area.gpkg", box(9, 47, 9.1, 47.1), more=box(8, 46, 8.1, 46.1))),
    area("condition", {**GPKG, "where": "NAME = = 'x'"}, "area.where", "is not understood",
         prepare=vector("area.gpkg", box(9, 47, 9.1, 47.1))),
    area("condition that nothing meets", {**GPKG, "where": "NAME = 'x'"}, "nothing matches area.where",
         prepare=vector("area.gpkg", box(9, 47, 9.1, 47.1))),
    Row("elsewhere", ("no scene found", "catalog.json", "30.0000, 10.0000", "outside the area"), 1,
        change={"area": FAR}),
    Row("no scene in the period", ("no scene found", "2001-01-01 to 2001-01-31", "outside the period"), 1,
        change={"period": {"start": "2001-01-01", "end": "2001-01-31"}}),
]  # fmt: skip

CATALOG = {"static_catalog": "archive/catalog.json"}
FIRST = "S2A_32TMT_20230605_0_L2A"

SOURCES = [
    Row("no source", ("source", "expected exactly one of stac_api, static_catalog, items"), change={"source": {}}),
    Row("two sources", ("source", "found stac_api and items"),
        change={"source": {"stac_api": "https://stac.example.org", "items": "a.json"}}),
    Row("API is no URL", ("source.stac_api", "http(s) URL"), change={"source": {"stac_api": "stac.example.org"}}),
    Row("API is away", ("stac_api http://127.0.0.1:9", "cannot be reached: 127.0.0.1:9: Connection refused"), 1,
        change={"source": {"stac_api": "http://127.0.0.1:9/v1"}}),
    Row("catalogue missing", ("nowhere.json", "No such file"), 1,
        change={"source": {"static_catalog": "nowhere.json"}}),
    Row("items of an unknown protocol", ("gopher://a/b.json", "cannot be read"), 1,
        change={"source": {"items": "gopher://a/b.json"}}),
    source("not JSON", document("catalog.json", "{'type': 'Catalog'}"), "catalog.json", "is not JSON"),
    source("a web page", document("catalog.json", HTML), "catalog.json", "is a web page, not JSON"),
    source("an empty document", document("catalog.json", ""), "catalog.json", "is not JSON"),
    source("JSON too deep", document("catalog.json", "[" * 100_000), "catalog.json", "is not JSON"),
    source("a list", document("catalog.json", "[]"), "is not a STAC document: found a list"),
    source("links of another type", document("catalog.json", '{"type": "Catalog", "links": "all"}'), "its links"),
    source("a link to nowhere", document("catalog.json", '{"links": [{"rel": "child"}]}'), "links has no href"),
    source("a link to a file that is gone", lambda place: (place.archive / "collection.json").unlink(),
           "collection.json (linked from", "catalog.json)", "No such file"),
    source("items that are gone", lambda place: [item.unlink() for item in place.items()],
           f"{FIRST}.json (linked from", "No such file", "4 whose document cannot be read"),
    source("a catalogue for a file of items", lambda place: None, "found a Catalog", "source.static_catalog",
           change={"source": {"items": "archive/catalog.json"}}),
    source("items of no type", write("items.json", '{"features": []}'), "expected a STAC item",
           change={"source": {"items": "items.json"}}),
    source("features are no list", write("items.json", '{"type": "FeatureCollection", "features": {"a": 1}}'),
           "items.json", "not a list of items", change={"source": {"items": "items.json"}}),
    source("a table that is none", write("items.parquet", b"PAR1"), "items.parquet", "is not a Parquet file",
           change={"source": {"items": "items.parquet"}}),
    source("another collection", lambda place: None, "no scene found", "collection sentinel-2-l1c",
           "in collection 'sentinel-2-l2a'", change={"source": {**CATALOG, "collection": "sentinel-2-l1c"}}),
    source("item without id", without("id"), f"{FIRST}.json", "has no id"),
    source("item's id is a path", having("id", "../../../../etc/passwd"), "../../../../etc/passwd", "its id holds '/'"),
    source("item's id is two lines", having("id", "one\nerror: two"), "one\\nerror: two", "a control character"),
    source("item without datetime", without("properties/datetime"), FIRST, "datetime is missing", "RFC 3339"),
    source("item of the thirteenth month", having("properties/datetime", "2023-13-01"), FIRST, "datetime"),
    source("item without geometry", having("geometry", None), FIRST, "geometry cannot be read: it has none"),
    source("item with a line", having("geometry", LINE), FIRST, "not a polygon (LineString)"),
    source("item's geometry is broken", having("geometry", {"type": "Polygon", "coordinates": [[1, 2]]}), FIRST,
           "geometry cannot be read"),
    source("item without assets", without("assets"), FIRST, "no file of B01", "among the assets none"),
    source("item's assets are a list", having("assets", [1]), FIRST, "assets are a list, expected an object"),
    source("item's properties are text", having("properties", "many"), FIRST, "properties are a str"),
    source("item without a band", without("assets/nir"), FIRST, "no file of B08", "coastal"),
    source("asset without href", without("assets/blue/href"), FIRST, "no file of B02", "blue (without href)"),
    source("asset by FTP", having("assets/blue/href", "ftp://host/B02.tif"), FIRST, "asset blue", "ftp://host/B02.tif"),
    source("asset by a command", having("assets/blue/href", "javascript:alert(1)"), FIRST, "asset blue"),
    source("asset's scale", having("assets/blue/raster:bands", [{"scale": 0.1}]), FIRST, "is 0.1, expected 0.0001"),
    source("item's CRS", having("properties/proj:epsg", 32633), FIRST, "CRS is EPSG:32633", "EPSG:32632"),
    source("no tile", lambda place: (without("properties/grid:code", "properties/mgrs:utm_zone")(place),
                                     having("id", "one")(place)), "item one", "no MGRS tile"),
    source("no baseline", without("properties/s2:processing_baseline", "properties/s2:product_uri"), FIRST,
           "processing baseline is unknown"),
    source("baseline of the future", having("properties/s2:processing_baseline", "09.99"), FIRST,
           "radiometry unknown", "baseline 09.99"),
    source("offset not told", without("properties/earthsearch:boa_offset_applied"), FIRST, "radiometry unknown",
           "boa_offset_applied absent"),
    source("a collection of a stranger", lambda place: (
        having("collection", "my-scenes")(place),
        document("collection.json", (place.archive / "collection.json").read_text().replace(
            '"sentinel-2-l2a"', '"my-scenes"'))(place)),
        FIRST, "radiometry unknown", "collection my-scenes", change={"source": {**CATALOG, "collection": None}}),
    source("classification gone", each_file("SCL", Path.unlink), "none of the 4 scenes found can be read", "SCL.tif"),
    source("classification damaged", each_file("SCL", garbled), "none of the 4 scenes found can be read", "SCL.tif"),
    source("nothing but nodata", each_file("SCL", rewritten(value=0)), "enough usable pixels", "4 scenes"),
]  # fmt: skip

RASTERS = [
    raster(
        "gone", each_file("B01", Path.unlink), "scene S2", "B01.tif", "cannot be opened", "check that the file exists"
    ),
    raster("empty", each_file("B02", lambda path: path.write_bytes(b"")), "B02", "B02.tif", "cannot be opened"),
    raster("cut short", each_file("B04", shortened), "B04", "B04.tif", "or leave the scene out"),
    raster("garbage", each_file("B05", garbled), "B05", "B05.tif", "not recognized"),
    raster("a web page", each_file("B08", lambda path: path.write_text(HTML)), "B08.tif", "not recognized"),
    raster("another CRS", each_file("B01", rewritten(crs="EPSG:32633")), "has CRS EPSG:32633", "EPSG:32632"),
    raster("off the lattice", each_file("B11", moved(7)), "B11.tif", "on the zone's lattice"),
    raster("coarser pixels", each_file("B12", scaled(2)), "B12.tif", "expected north-up pixels of 20"),
    raster("numbers with a point", each_file("B03", rewritten(dtype="float32", value=0.25)), "B03.tif", "such as 0.25"),
    raster("a preview of 8 bits", each_file("B03", rewritten(dtype="uint8")), "B03.tif", "of uint8", "uint16"),
    raster("a picture", each_file("B03", rewritten(count=3)), "B03.tif", "holds 3 band(s)"),
]

WEIGHTS = [
    Row("weights missing", ("nowhere.ckpt", "cannot be read"), 1, change={"model.stage1": "nowhere.ckpt"}),
    Row("weights are noise", ("w.ckpt", "neither a torch checkpoint nor"), 1, change={"model.stage1": "w.ckpt"},
        prepare=write("w.ckpt", np.random.default_rng(0).bytes(4096))),
    Row("weights of the other stage", ("holds no stage 1",), 1,
        change={"model.stage1": str(shipped("small", "fusion"))}),
    Row("weights cut short", ("half.safetensors", "damaged"), 1, change={"model.stage1": "half.safetensors"},
        prepare=half_of_the_weights),
    Row("weights with code", ("w.ckpt", "refused", "might run code"), 1, change={"model.stage1": "w.ckpt"},
        prepare=hostile_weights),
    Row("a bare pickle", ("plain.pkl", "neither a torch checkpoint nor"), 1, change={"model.fusion": "plain.pkl"},
        prepare=hostile_weights),
    Row("weights of an unknown protocol", ("gopher://a/w.ckpt", "cannot be read"), 1,
        change={"model.fusion": "gopher://a/w.ckpt"}),
]  # fmt: skip

STORES = [
    Row("store below a file", ("file/cube.zarr", "cannot be written"), 1, "run CONFIG",
        {"store": {"url": "file/cube.zarr", "staging": "staging"}}, prepare=write("file", "")),
    Row("store is a file", ("file.zarr", "cannot be written"), 1, "run CONFIG",
        {"store": {"url": "file.zarr", "staging": "staging"}}, prepare=write("file.zarr", "")),
    Row("store where nobody may write", ("/proc/cube.zarr", "cannot be written"), 1, "run CONFIG",
        {"store": {"url": "/proc/cube.zarr", "staging": "staging"}}),
    Row("staging where nobody may write", ("/proc/staging", "cannot be written"), 1, "run CONFIG",
        {"store": {"url": "new.zarr", "staging": "/proc/staging"}}),
    Row("another Zarr", ("store.url", "other.zarr", "not a cube of this kind"), 2, "run CONFIG",
        {"store": {"url": "other.zarr"}}, prepare=another_zarr),
    Row("other ground", ("store.url", "already holds", "choose another store.url"), 2, "run CONFIG",
        {"area": {"bbox": [9.0, 47.755, 9.003, 47.757]}}),
    Row("other shards", ("store.url", "already holds", "512 px", "256 px"), 2, "run CONFIG", {"grid.shard_px": 256}),
    Row("other samples", ("model.uncertainty_samples", "found 2", "no reflectance_std"), 2, "run CONFIG",
        {"model.uncertainty_samples": 2}),
    Row("store of an unknown protocol", ("store.url", "gopher://a/cube.zarr"), 2, "run CONFIG",
        {"store": {"url": "gopher://a/cube.zarr"}}),
    Row("password in a URL", ("store.url", "found credentials", "store.storage_options"), 2, "run CONFIG",
        {"store": {"url": "https://me:SECRET@host/cube.zarr"}}),
    Row("signature in a URL", ("store.url", "found credentials"), 2, "run CONFIG",
        {"store": {"url": "https://host/cube.zarr?sig=SECRET"}}),
    Row("staging inside the cube", ("store.staging", "outside store.url"), 2, "run CONFIG",
        {"store": {"url": "run.zarr", "staging": "run.zarr/staging"}}),
    Row("no store", ("store.url: missing",), 2, "run CONFIG", {"store": {}}),
    Row("options are a list", ("store.storage_options", "a mapping of fsspec options"), 2, "run CONFIG",
        {"store": {"url": "run.zarr", "storage_options": ["SECRET"]}}),
]  # fmt: skip

COMMANDS = [
    Row("verify before a run", ("new.zarr", "no cube to verify", "difffusr run"), 1, "verify CONFIG",
        {"store": {"url": "new.zarr"}}),
    Row("status before a plan", ("new.staging", "no plan yet", "difffusr run"), 1, "status CONFIG",
        {"store": {"url": "new.zarr"}}),
    Row("difference before a plan", ("new.staging", "no plan to compare with"), 1, "plan CONFIG --diff",
        {"store": {"url": "new.zarr"}}),
    Row("estimate without calibration", ("--estimate", "costs.calibration", "difffusr calibrate"), 2,
        "plan CONFIG --estimate"),
    Row("calibration missing", ("calibration.json", "cannot be read", "difffusr calibrate"), 2,
        "plan CONFIG --estimate", {"costs": {"calibration": "calibration.json"}}),
    Row("calibration is noise", ("calibration.json", "is not a calibration of this version"), 2,
        "plan CONFIG --estimate", {"costs": {"calibration": "calibration.json"}},
        prepare=write("calibration.json", b"\x00\xff")),
    Row("calibration of another kind", ("calibration.json", "is not a calibration of this version"), 2,
        "plan CONFIG --estimate", {"costs": {"calibration": "calibration.json"}},
        prepare=write("calibration.json", '{"seconds": 1}')),
    Row("batches", ("--batches", "'two'", "1,2,4"), 2, "calibrate CONFIG --batches two"),
    Row("JSON into no folder", ("nowhere/plan.json", "cannot be written"), 1,
        "plan CONFIG --json FOLDER/nowhere/plan.json"),
    Row("a report into no folder", ("nowhere/report.json", "cannot be written"), 1,
        "verify CONFIG --json FOLDER/nowhere/report.json"),
    Row("a map into no folder", ("nowhere/map.png", "cannot be written"), 1,
        "plan CONFIG --map FOLDER/nowhere/map.png"),
    Row("training's file missing", ("nowhere.yaml",), 2, "train sr FOLDER/nowhere.yaml"),
    Row("nothing to judge", ("nowhere", "no such folder"), 2, "evaluate sr FOLDER/nowhere"),
]  # fmt: skip

TABLE = {
    f"{kind}: {row.id}": row
    for kind, rows in {
        "yaml": YAML, "section": SECTIONS, "area": AREAS, "source": SOURCES, "raster": RASTERS, "weights": WEIGHTS,
        "store": STORES, "command": COMMANDS,
    }.items()
    for row in rows
}  # fmt: skip


@pytest.fixture
def place(finished: Path) -> Place:
    return Place(finished.parent, yaml.safe_load(finished.read_text()))


def contents(folder: Path) -> dict[str, str]:
    """Checksums of a cube's objects and of all staged chips."""
    files = [*(folder / "run.zarr").rglob("*"), *(folder / "run.staging").rglob("*.chip")]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_bad_input_ends_in_one_line_and_spares_what_is_there(command, place: Place, world, row: Row) -> None:
    before = contents(place.folder)
    assert len(before) > 10
    if row.damage is not None:
        shutil.copytree(world.catalog.parent, place.archive)
        place.config["source"] = CATALOG
        row.damage(place)
    if row.prepare is not None:
        row.prepare(place)
    for key, content in row.change.items():
        place.set(key, content)
    path = place.folder / "run.yaml"
    given = row.text if row.text is not None else yaml.safe_dump(place.config)
    path.write_bytes(given if isinstance(given, bytes) else given.encode())
    words = [word.replace("CONFIG", str(path)).replace("FOLDER", str(place.folder)) for word in row.command.split()]
    ended = command(*words)
    said_once(ended, row.code, *row.says)
    assert "SECRET" not in ended.err + ended.out
    assert not (place.folder / "trace").exists()
    assert contents(place.folder) == before


# ---- more than a row ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["", "run", "fly CONFIG", "run CONFIG --fast", "plan CONFIG --actors none", "train"])
def test_wrong_words_end_with_2_and_show_the_usage(command, words: str) -> None:
    ended = command(*words.split())
    assert ended.code == 2
    assert "Usage:" in ended.err + ended.out
    assert "Traceback" not in ended.err + ended.out


def test_one_damaged_classification_costs_its_scene_alone(command, place: Place, world) -> None:
    shutil.copytree(world.catalog.parent, place.archive)
    garbled(place.files("SCL")[0])
    place.config.update(source=CATALOG, store={"url": "new.zarr"}, compute={"actors_max": 1})
    path = place.folder / "new.yaml"
    path.write_text(yaml.safe_dump(place.config))
    ended = command("plan", path)
    assert ended.code == 0, ended.err
    assert "scene left out" in ended.err
    assert FIRST in ended.err
    assert ended.err.count("\n") == 1


def test_a_band_that_no_scene_has_whole_fails_every_chip_and_publishes_nothing(difffusr, place: Place, world) -> None:
    shutil.copytree(world.catalog.parent, place.archive)
    for path in place.files("B01"):
        path.unlink()
    west, south, east, north = world.bbox
    middle = [(west + east) / 2, (south + north) / 2]
    place.config["area"] = {"bbox": [*middle, middle[0] + 1e-4, middle[1] + 1e-4]}
    place.config.update(source=CATALOG, store={"url": "new.zarr"}, compute={"actors_max": 1})
    path = place.folder / "new.yaml"
    path.write_text(yaml.safe_dump(place.config))
    said_once(difffusr("run", path), 1, "chips failed", "B01.tif", "nothing was published")
    assert not (place.folder / "new.zarr" / "zarr.json").exists()


def test_a_cluster_that_does_not_answer_is_named(configure):
    """In a process of its own: here Ray is running already."""
    path = configure(compute={"address": "127.0.0.1:9"})
    ended = subprocess.run(
        [Path(sys.executable).parent / "difffusr", "run", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "compute.address" in ended.stderr
    assert "127.0.0.1:9" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [line[:7] for line in ended.stderr.splitlines() if " info: " not in line] == ["error: "]
