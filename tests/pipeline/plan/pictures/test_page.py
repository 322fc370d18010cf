"""The page carries every chip, and puts it where the picture does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from drawn_plans import EQUATOR, FIJI, GRID, TWO_ZONES, data_of, plan
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.plan.pictures.frame import Frame
from difffusr.pipeline.plan.pictures.page import write_page
from difffusr.pipeline.plan.pictures.rasterise import rasterise_chips


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
