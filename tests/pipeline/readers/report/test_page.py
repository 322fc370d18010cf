"""The page needs nothing but itself, and escapes what it is given."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import numpy as np
from reported_cubes import HOLDS, RNG, Elements, staging_of
from small_cubes import EPSG, label

from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.readers.report import survey
from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.readers.report.survey import Cell


def test_the_page_loads_nothing_and_lets_nothing_else_run(told):
    page = to_page(told)
    elements = Elements(page)
    loading = [
        (tag, at[name]) for tag, at in elements.found for name in ("src", "srcset", "href", "data") if name in at
    ]
    assert {tag for tag, _ in loading} == {"img", "a"}
    assert all(str(value).startswith("data:image/webp;base64,") for tag, value in loading if tag == "img")
    assert "url(" not in page
    assert "@import" not in page
    assert not any(name == "style" or name.startswith("on") for _, at in elements.found for name in at)
    policy = next(at["content"] for at in elements.named("meta") if "http-equiv" in at)
    for name in ("style", "script"):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_names_are_text_whatever_they_hold(told):
    page = to_page(told)
    assert page.count("<script>") == 1
    assert "<td>&lt;script&gt;" not in page  # a scene's name heads its row
    assert '<th scope="row">&lt;script&gt;alert(&#x27;%POLICY%&#x27;)&lt;/script&gt;</th>' in page
    assert "file: &lt;script&gt;" in page


def test_the_page_attributes_the_data_and_says_what_it_was_made_with(told):
    page = to_page(told)
    assert "Contains modified Copernicus Sentinel data 2022, 2023." in page
    assert "weights and sampling 6e50b793ddc6" in page
    assert "difffusr 0.1.0" in page
    assert "new period" in page
    assert f"From {HOLDS.sum():,} pixels of 2.5 m with data" in page


def test_the_same_cube_gives_the_same_page(cube, told):
    assert to_page(collect_report(cube, staging_of(cube), None, [label(1)])) == to_page(told)


def test_periods_are_chosen_between(cube):
    page = to_page(collect_report(cube, staging_of(cube), None))
    radios = [at for at in Elements(page).named("input") if at.get("name") == "period"]
    assert [("checked" in at, at["id"]) for at in radios] == [(False, "p0"), (True, "p1")]
    assert [at["class"] for at in Elements(page).named("section") if "class" in at] == ["period p0", "period p1"]


def test_a_large_cube_has_a_small_page(told):
    """Three thousand cells, and pictures with more in them than any ground has."""
    period = told.periods[0]
    flags = (100, 5000, 2000, 1000, 10, 0, 0)
    cells = tuple(
        Cell(EPSG, PixelWindow(-720_000 + 2048 * (i // 60), 200_000 + 2048 * (i % 60), 2048, 2048), 1, flags, 1)
        for i in range(3000)
    )
    rough = np.cumsum(RNG.normal(0, 0.01, (4, 480, 480)), axis=2).astype(np.float32)
    crop = replace(period.crops[0], after=rough, before=rough.reshape(4, 120, 4, 120, 4).mean(axis=(2, 4)))
    large = replace(period, survey=replace_survey(period.survey, cells), crops=(crop,) * 4)
    assert len(to_page(replace(told, periods=(large,))).encode()) < 3_000_000


def replace_survey(seen: survey.Survey, cells: tuple[Cell, ...]) -> survey.Survey:
    return survey.Survey(cells, seen.seen_m, seen.scenes, seen.bands, seen.places)
