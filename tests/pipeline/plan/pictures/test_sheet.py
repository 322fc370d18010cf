"""The plan's picture and page show every chip where it is, in the colour of its date."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.geo.zones import territory, to_zone, zones_over
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.plan.pictures.colours import PALETTE, Dates, date_colours, rgb
from difffusr.pipeline.plan.pictures.frame import Frame
from difffusr.pipeline.plan.pictures.page import write_page
from difffusr.pipeline.plan.pictures.picture import draw_map
from difffusr.pipeline.plan.pictures.rasterise import rasterise_chips
from difffusr.pipeline.plan.tables import Chips, Plan, Shards, StoredPlan
from difffusr.pipeline.scenes.item import Scene

GRID = Grid()
TWO_ZONES = box(11.8, 48.0, 12.2, 48.3)
FIJI = MultiPolygon([box(179.8, -17.2, 180, -17.0), box(-180, -17.2, -179.8, -17.0)])
EQUATOR = box(29.9, -0.1, 30.1, 0.1)


def plan(area: BaseGeometry, dates: int = 3, name: str = "look") -> Plan:
    """All chips of an area; their dates go from west to east, every seventh chip has nothing clear."""
    scenes = [
        Scene(
            id=f"S{k:03d}", collection="c1", datetime=dt.datetime(2024, 6, 1, 10, tzinfo=dt.UTC) + dt.timedelta(days=k),
            tile="32ULV", epsg=32632, baseline="05.10", cloud_cover=3.0, provider="p", footprint=area, assets={},
            scl=None, product_uri=None, datatake=None, created=None, updated=None, sequence=None,
        )
        for k in range(dates)
    ]  # fmt: skip
    places = []
    for epsg in zones_over(area):
        rows, cols = GRID.chips_over(epsg, to_zone(area.intersection(territory(epsg)), epsg))
        places.append(np.stack([np.full(len(rows), epsg), rows, cols]))
    epsg, row, col = np.concatenate(places, axis=1).astype(np.int32)
    n = len(row)
    first = np.arange(n, dtype=np.int32) % dates
    chosen = np.stack([first, np.where(np.arange(n) % 2, (first + 1) % dates, -1)], axis=1).astype(np.int32)
    clear = np.where(np.arange(n) % 7, 0.9, 0.0).astype(np.float32)
    key = np.arange(n * 32, dtype=np.int64).astype(np.uint8).reshape(n, 32)
    chips = Chips(epsg, row, col, chosen, np.ones(n, np.float32), clear, key, tuple(s.id for s in scenes))
    config = {"name": name, "period": {"start": "2024-06-01", "end": "2024-06-30"}}
    return Plan(tuple(scenes), chips, Shards.of(chips, GRID), {"config": config, "borders": 5})


def stored(made: Plan) -> StoredPlan:
    names = ("id", "tile", "baseline", "cloud_cover")
    rows = [{k: getattr(s, k) for k in names} | {"datetime": s.datetime.isoformat()} for s in made.scenes]
    frame = gpd.GeoDataFrame(pd.DataFrame(rows), geometry=[s.footprint for s in made.scenes], crs="EPSG:4326")
    return StoredPlan(made.manifest, frame, made.chips, made.shards)


def data_of(page: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the columns that a page carries."""
    packed = re.search(r'id="data">([^<]*)<', page.read_text(encoding="utf-8"))
    assert packed
    data = zlib.decompress(base64.b64decode(packed[1]))
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    return header, {
        name: np.frombuffer(data, np.dtype(kind).newbyteorder("<"), count, 4 + length + at)
        for name, kind, at, count in header["columns"]
    }


@pytest.mark.parametrize("area", [TWO_ZONES, FIJI, EQUATOR], ids=["two zones", "across 180°", "both hemispheres"])
def test_every_chip_lies_where_its_middle_is(area: BaseGeometry) -> None:
    chips = plan(area).chips
    frame = Frame.around(chips, GRID, area, 900, (400, 1200))
    seen = rasterise_chips(chips, GRID, frame)
    cores = GRID.chip_cores_m(chips.epsg, chips.row.astype(np.int64), chips.col.astype(np.int64))
    agree = []
    for i, epsg in enumerate(chips.epsg.tolist()):
        to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
        lon, lat = to_degrees.transform((cores[i, 0] + cores[i, 2]) / 2, (cores[i, 1] + cores[i, 3]) / 2)
        x, y = frame.pixels(np.array(lon), np.array(lat))
        assert 0 <= x < frame.width
        assert 0 <= y < frame.height
        there = seen[int(y), int(x)]
        # Where a chip's middle lies in the other zone, that zone's chip is shown.
        agree.append(there == i or (there >= 0 and chips.epsg[there] != epsg))
    assert all(agree)


def test_an_area_across_180_degrees_is_drawn_in_one_piece() -> None:
    chips = plan(FIJI).chips
    frame = Frame.around(chips, GRID, FIJI, 900, (400, 1200))
    assert abs(abs(frame.lon) - 180) < 0.1
    (ring,) = list(frame.rings(FIJI))
    assert np.ptp(ring[:, 0]) < frame.width
    columns = np.flatnonzero((rasterise_chips(chips, GRID, frame) >= 0).any(axis=0))
    assert np.array_equal(columns, np.arange(columns[0], columns[-1] + 1))


@settings(max_examples=30, deadline=None)
@given(st.floats(-180, 180), st.floats(-75, 75), st.floats(0, 800), st.floats(0, 500))
def test_pixels_and_degrees_are_each_others_inverse(lon: float, lat: float, x: float, y: float) -> None:
    frame = Frame(lon, lat, 300.0, 800, 500)
    back = frame.pixels(*frame.degrees(np.array([x]), np.array([y])))
    np.testing.assert_allclose(back, [[x, y]], atol=1e-6)


def test_the_picture_is_the_same_every_time_and_from_disk(tmp_path: Path) -> None:
    made = plan(TWO_ZONES)
    draw_map(made, GRID, TWO_ZONES, tmp_path / "one.png")
    draw_map(stored(made), GRID, TWO_ZONES, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.width == 1680
        shown = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {rgb(colour) for colour in PALETTE[:3]} <= shown


@pytest.mark.parametrize("dates", [1, 12, 13, 40])
def test_any_number_of_dates_can_be_drawn(tmp_path: Path, dates: int) -> None:
    draw_map(plan(TWO_ZONES, dates), GRID, None, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_twelve_dates_can_be_told_apart_by_every_eye() -> None:
    days = np.arange("2024-06-01", "2024-06-13", dtype="datetime64[D]")
    linear = (date_colours(days) / 255.0) ** 2.2
    for eye in _EYES:
        colours = _oklab(np.clip(linear @ eye.T, 0, 1))
        apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(12, dtype=bool)]
        assert apart.min() > 0.09


def test_more_dates_run_along_time() -> None:
    days = np.array(["2024-01-01", "2024-01-02", *(f"2024-06-{k:02d}" for k in range(1, 21))], "datetime64[D]")
    steps = np.abs(np.diff(date_colours(days).astype(int), axis=0)).sum(axis=1)
    assert steps[1] > 5 * steps[0]


def test_dates_count_the_chips_that_show_them() -> None:
    made = plan(TWO_ZONES, 4)
    dates = Dates.of(made)
    assert dates.chips.sum() == len(made.chips)
    assert [str(day) for day in dates.days] == ["2024-06-01", "2024-06-02", "2024-06-03", "2024-06-04"]


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    made = plan(EQUATOR)
    with pytest.raises(StoreError, match="cannot be written"):
        draw_map(made, GRID, EQUATOR, tmp_path / "nowhere" / "map.png")
    with pytest.raises(StoreError, match="cannot be written"):
        write_page(made, GRID, EQUATOR, tmp_path / "nowhere" / "map.html")


def test_the_page_carries_every_chip(tmp_path: Path) -> None:
    made = plan(TWO_ZONES)
    write_page(made, GRID, TWO_ZONES, tmp_path / "plan.html")
    header, columns = data_of(tmp_path / "plan.html")
    assert header["kind"] == "chip"
    assert [zone["epsg"] for zone in header["zones"]] == [32632, 32633]
    np.testing.assert_array_equal(columns["row"], made.chips.row)
    np.testing.assert_array_equal(columns["col"], made.chips.col)
    np.testing.assert_array_equal(columns["clear"] == 0, made.chips.clear == 0)
    for i in (0, 1, len(made.chips) - 1):
        members = columns["members"][slice(*columns["first"][columns["list"][i] :][:2])]
        assert tuple(header["scenes_table"][m][0] for m in members) == made.chips[i].scenes
    assert sum(row[5] for row in header["scenes_table"]) == len(made.chips)


def test_a_plan_too_large_for_chips_is_shown_by_shards(tmp_path: Path) -> None:
    made = plan(TWO_ZONES)
    write_page(made, GRID, TWO_ZONES, tmp_path / "plan.html", most_squares=10)
    header, columns = data_of(tmp_path / "plan.html")
    assert header["kind"] == "shard"
    assert columns["chips_of"].sum() == len(made.chips)
    assert 0 < len(columns["row"]) <= len(made.shards)
    places = {
        (int(e), int(r), int(c)) for e, r, c in zip(made.shards.epsg, made.shards.row, made.shards.col, strict=True)
    }
    for zone in header["zones"]:
        part = slice(zone["first"], zone["stop"])
        assert {(zone["epsg"], r, c) for r, c in zip(columns["row"][part], columns["col"][part], strict=True)} <= places
    used = columns["first"][1:].astype(int) - columns["first"][:-1]
    assert used.min() >= 1
    assert used.max() <= 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("area", [TWO_ZONES, FIJI, EQUATOR], ids=["two zones", "across 180°", "both hemispheres"])
def test_the_page_puts_chips_where_the_picture_does(tmp_path: Path, area: BaseGeometry) -> None:
    made = plan(area)
    frame = Frame.around(made.chips, GRID, area, 600, (300, 600))
    write_page(made, GRID, area, tmp_path / "plan.html")
    script = """<script>unpack().then(plan => {
        const {lon, lat, scale, width, height} = FRAME;
        const view = new MapView(plan.view), cells = new Int32Array(width * height);
        Object.assign(view, {lon, lat, scale}); sample(plan, view, width, height, 1, cells);
        document.title = "cells " + Array.from(cells).filter((_, i) => i % 97 === 0).join(" ") + " end"; })</script>"""
    with (tmp_path / "plan.html").open("a", encoding="utf-8") as file:
        file.write(script.replace("FRAME", json.dumps(asdict(frame))))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    shown = subprocess.run([*command, str(tmp_path / "plan.html")], capture_output=True, text=True, timeout=120).stdout
    found = re.search(r"<title>cells ([-\d ]+) end</title>", shown)
    assert found
    page, picture = np.array(found[1].split(), int), rasterise_chips(made.chips, GRID, frame).ravel()[::97]
    assert (page >= 0).any()
    assert (page == picture).mean() > 0.995


def test_the_page_needs_no_network_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    made = plan(EQUATOR, name="<b>&</b>")
    scenes = tuple(replace(scene, baseline="</script>%DATA%") for scene in made.scenes)
    write_page(replace(made, scenes=scenes), GRID, EQUATOR, tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;&lt;/b&gt;" in page
    assert "<b>&" not in page
    assert not re.search(r"https?://|<link|src=", page)
    assert page.count("</script>") == 2


#: What normal, protan, deutan and tritan eyes make of linear RGB (Machado et al. 2009, severity 1).
_EYES = (
    np.eye(3),
    np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
)


def _oklab(linear: np.ndarray) -> np.ndarray:
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    return np.cbrt(linear @ cones.T) @ lab.T
