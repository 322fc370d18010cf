"""What balance does is drawn on one scale to both sides, and every scene has its place on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from balanced_scenes import balanced, balanced_plan, correction, with_balance
from browser import Page, in_browser, needs_chromium
from drawn_plans import GRID, TWO_ZONES, data_of, plan
from PIL import Image

from difffusr.pipeline.plan.pictures.colours import BARE, ramp
from difffusr.pipeline.plan.pictures.page import write_page
from difffusr.pipeline.plan.pictures.picture import draw_map
from difffusr.pipeline.plan.pictures.shifts import BANDS_SHOWN, SHIFT_RAMP, Shifts
from difffusr.pipeline.plan.scene_balance import SceneBalance


def shifts_of(values: dict[str, float], hazy: str = "") -> Shifts:
    """Of scenes of which every band is moved by so many DN, B02 by ten times as many."""
    kinds = {name: correction(1.01, hazy=name == hazy) for name in values}
    names = sorted(values)
    made = plan(TWO_ZONES, dates=len(names))
    ids = dict(zip((scene.id for scene in made.scenes), names, strict=True))
    done = balanced({new: kinds[old] for new, old in ids.items()}, {new: values[old] for new, old in ids.items()})
    found = Shifts.of(with_balance(made, done))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"a": 8.0, "b": -4.0}, 0.01),
        ({"a": 10.0}, 0.01),
        ({"a": 10.1, "b": 0.0}, 0.02),
        ({"a": -41.0, "b": 3.0}, 0.05),
        ({"a": 0.02, "b": -0.01}, 0.001),
        ({"a": 700.0}, 1.0),
    ],
)
def test_a_scale_ends_at_a_round_number_beyond_every_shift(values: dict[str, float], limit: float) -> None:
    found = shifts_of(values)
    np.testing.assert_allclose(found.limits[0], limit)
    assert (np.abs(found.by_scene) <= found.limits + 1e-12).all()


def test_a_hazy_scene_does_not_stretch_the_scale_of_the_others() -> None:
    found = shifts_of({"a": 8.0, "b": -4.0, "h": -60.0}, hazy="h")
    np.testing.assert_allclose(found.limits[0], 0.01)
    assert tuple(found.colours(0)[2]) == tuple(ramp(SHIFT_RAMP, np.array([0.0]))[0])
    np.testing.assert_allclose(shifts_of({"h": -60.0}, hazy="h").limits[0], 0.1)


def test_colours_are_symmetric_around_no_shift() -> None:
    found = shifts_of({"a": 10.0, "b": -10.0, "c": 0.0})
    up, down, still = found.colours(0)
    ends = ramp(SHIFT_RAMP, np.array([1.0, 0.0, 0.5]))
    np.testing.assert_array_equal(np.stack([up, down, still]), ends)
    assert int(up[0]) > int(up[2]) + 80  # warm where more is added
    assert int(down[2]) > int(down[0]) + 80


def test_a_scene_that_is_not_balanced_has_a_colour_of_its_own() -> None:
    found = Shifts.of(balanced_plan(TWO_ZONES))
    assert found is not None
    assert tuple(found.colours(0)[3]) == BARE
    assert found.to_json()["by_scene"][3] == [None] * len(BANDS_SHOWN)


def test_with_nothing_but_factors_these_are_shown() -> None:
    found = Shifts.of(balanced_plan(TWO_ZONES, full=False))
    assert found is not None
    assert found.kind == "factor"
    np.testing.assert_allclose(found.by_scene[:3, 0], [-0.05, 0.02, -0.03], atol=1e-4)
    assert found.ends(0) == ("× 0.950", "× 1", "× 1.050")


@pytest.mark.parametrize("full", [True, False], ids=["full", "nbar"])
@pytest.mark.parametrize("most_squares", [300_000, 10], ids=["chips", "shards"])
def test_the_page_carries_a_few_numbers_a_scene_and_none_a_chip(tmp_path: Path, full: bool, most_squares: int) -> None:
    made = balanced_plan(TWO_ZONES, full=full)
    write_page(made, GRID, TWO_ZONES, tmp_path / "plan.html", most_squares)
    header, columns = data_of(tmp_path / "plan.html")
    told, done = header["balance"], SceneBalance.of(made)
    assert done is not None
    assert (told["kind"], told["bands"]) == ("shift" if full else "factor", list(BANDS_SHOWN))
    assert len(told["by_scene"]) == len(told["apart"]) == len(header["scenes_table"]) == 4
    assert told["hazy"] == ([0] if full else [])
    if full:
        assert [row[0] for row in told["by_scene"]] == [-5000, -400, 800, None]
        assert told["apart"][0] == [800, 200]
        assert told["limits"][0] == 1000
    else:
        assert told["apart"][0] == [None, None]
    write_page(plan(TWO_ZONES, dates=4), GRID, TWO_ZONES, tmp_path / "plain.html", most_squares)
    plain, same = data_of(tmp_path / "plain.html")
    assert plain["balance"] is None
    assert {name: len(column) for name, column in same.items()} == {name: len(c) for name, c in columns.items()}
    json.dumps(header, allow_nan=False)


def test_the_picture_has_a_second_small_map_where_it_fits(tmp_path: Path) -> None:
    made = balanced_plan(TWO_ZONES)
    draw_map(made, GRID, TWO_ZONES, tmp_path / "balanced.png")
    draw_map(replace(made, balance=None), GRID, TWO_ZONES, tmp_path / "plain.png")
    with Image.open(tmp_path / "balanced.png") as one, Image.open(tmp_path / "plain.png") as other:
        assert one.size == other.size
        differs = (np.asarray(one.convert("RGB")) != np.asarray(other.convert("RGB"))).any(axis=-1)
        rows, cols = np.nonzero(differs)
        assert cols.min() > one.size[0] * 0.7
        assert rows.min() > one.size[1] * 0.3
        drawn = np.asarray(one.convert("RGB")).reshape(-1, 3)
    for colour in np.unique(Shifts.of(made).colours(0)[:3], axis=0):  # type: ignore[union-attr]
        assert (np.abs(drawn.astype(int) - colour) <= 2).all(axis=1).sum() > 50


@needs_chromium
def test_the_page_is_coloured_by_the_band_that_is_chosen(tmp_path: Path) -> None:
    made = balanced_plan(TWO_ZONES)
    write_page(made, GRID, TWO_ZONES, tmp_path / "plan.html")
    write_page(plan(TWO_ZONES), GRID, TWO_ZONES, tmp_path / "plain.html")
    found: dict[str, object] = {}

    async def look(page: Page) -> None:
        await page.open((tmp_path / "plan.html").as_uri(), 1000)
        await page.until("document.querySelectorAll('#rows tr').length === 4")
        found["heads"] = await page.find("[...document.querySelectorAll('#heads th')].map(h => h.textContent)")
        row = "[...document.querySelectorAll('#rows tr')].find(r => r.textContent.startsWith('{}'))"
        for name in ("S000", "S003"):
            found[name] = await page.find(f"[...{row.format(name)}.cells].map(c => c.textContent)")
        await page.find("document.querySelector('[data-mode=balance]').click()")
        found["ends"] = await page.find("[...document.querySelectorAll('.ends span')].map(s => s.textContent)")
        found["signs"] = await page.find("[...document.querySelectorAll('.sign')].map(s => s.textContent)")
        await page.find("[...document.querySelectorAll('.bands button')].find(b => b.textContent === 'B08').focus()")
        await page.send(
            "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
        await page.until(
            "document.activeElement.textContent === 'B08' && document.activeElement.ariaPressed === 'true'"
        )
        found["B08"] = await page.find("[...document.querySelectorAll('.ends span')].map(s => s.textContent)")
        await page.find("document.querySelector('#map').focus()")
        await page.press("ArrowLeft")
        await page.until("!document.querySelector('#tip').hidden")
        found["tip"] = await page.find("document.querySelector('#tip').textContent")
        await page.find(
            "[...document.querySelectorAll('#heads button')].find(b => b.textContent === 'shift B02').click()"
        )
        found["sorted"] = await page.find("[...document.querySelectorAll('#rows tr')].map(r => r.cells[0].textContent)")
        await page.open((tmp_path / "plain.html").as_uri(), 1000)
        await page.until("document.querySelectorAll('#rows tr').length === 3")
        found["plain"] = await page.find("document.querySelector('[data-mode=balance]').hidden")
        found["plain heads"] = await page.find("document.querySelectorAll('#heads th').length")
        found["said"] = page.said

    in_browser(look)
    heads = [f"shift {band}" for band in BANDS_SHOWN]
    assert found["heads"][7:] == [*heads, "apart before", "apart after"]  # type: ignore[index]
    assert found["S000"][0] == "S000hazy"  # type: ignore[index]
    assert found["S000"][7:] == ["−0.0500", *["−0.0050"] * 4, "0.0080", "0.0020"]  # type: ignore[index]
    assert found["S003"][7:] == ["–"] * 7  # type: ignore[index]
    assert found["ends"] == ["−0.010", "0", "+0.010"]
    assert found["B08"] == ["−0.001", "0", "+0.001"]
    assert [text.rstrip("0123456789,") for text in found["signs"]] == [  # type: ignore[attr-defined]
        "chips from a hazy scene", "chips from a scene that is not balanced",
    ]  # fmt: skip
    assert " in B08" in str(found["tip"])
    assert found["sorted"] == ["S002", "S001", "S000hazy", "S003"]
    assert (found["plain"], found["plain heads"], found["said"]) == (True, 7, [])
