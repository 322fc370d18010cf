"""The report of a run that has ended: what it tells is what the run left, and a browser shows it on any screen."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from browser import Page, in_browser, needs_chromium

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.plan.pictures.colours import CLEAR_RAMP, rgb
from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.report.map import COLOURINGS
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.readers.report.survey import Survey
from difffusr.pipeline.storage.places import cube_staging_of, staging_of, storage_of


@pytest.fixture(scope="session")
def reported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the ended run, asked for by its configuration."""
    from difffusr.pipeline.commands.cube import report

    path = tmp_path_factory.mktemp("page") / "report.html"
    report(str(finished_run), path)
    return path


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    table = page.partition(f">{heading}</h3>")[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_seams_and_residual_are_those_that_verify_finds(difffusr, finished, reported, tmp_path):
    difffusr("verify", finished, "--json", tmp_path / "verify.json")
    bands = json.loads((tmp_path / "verify.json").read_text())["bands"]
    rows = rows_of(reported.read_text(), "Seams and residual")
    assert [row[0] for row in rows] == [band["band"] for band in bands]
    for row, band in zip(rows, bands, strict=True):
        assert row[1] == f"{band['seam_ratio']:.3f} ± {band['seam_error']:.3f}"
        assert row[3] == f"{band['residual']:.5f}"
    assert "measured at 12 chips" in reported.read_text()


def test_the_page_tells_what_the_run_took_and_shows_what_it_measured(finished_run, reported):
    page = reported.read_text()
    run = json.loads(staging_of(load_config(finished_run)).read("report.json"))
    for stage, seconds in run["seconds"].items():
        assert f'<th scope="row">{stage}</th><td>{seconds:,.2f}</td>' in page
    assert f"{run['chips']['computed']:,} computed" in page
    assert "10 m, as measured" in page
    assert "Missing from this report" not in page


def test_scenes_that_are_gone_are_said_to_be(difffusr, finished, tmp_path):
    folder = Path(staging_of(load_config(finished)).url) / "published" / "manifest.json"
    manifest = json.loads(folder.read_text())
    manifest["config"]["source"]["static_catalog"] = str(tmp_path / "none" / "catalog.json")
    folder.write_text(json.dumps(manifest))
    ended = difffusr("report", finished.with_suffix(".zarr"), "--output", tmp_path / "page.html")
    assert (ended.code, ended.err) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert "The scenes cannot be looked up, so nothing is compared with them" in page
    assert "The residual is not known" in page
    assert "10 m, as measured" not in page
    assert all(re.fullmatch(r"\d\.\d{3} ± \d\.\d{3}", row[1]) for row in rows_of(page, "Seams and residual"))


@needs_chromium
def test_a_browser_shows_it_whole_on_a_desk_and_on_a_telephone(reported):
    async def look(page: Page) -> None:
        for width in (1440, 390):
            await page.open(reported.as_uri(), width)
            assert await page.find("document.documentElement.scrollWidth") == width
            broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
            assert await page.find("document.images.length") >= 4
            assert await page.find(broken) == 0
            assert await page.find("document.querySelectorAll('.key-date').length") == 1
        assert {address.partition(":")[0] for address in page.asked} == {"file", "data"}
        assert sum(address.startswith("file:") for address in page.asked) == 2
        assert page.said == []

    in_browser(look)


@needs_chromium
def test_slider_and_map_are_worked_by_keys_and_by_pointer(reported):
    async def use(page: Page) -> None:
        await page.open(reported.as_uri(), 1000)
        at = "document.querySelector('.frames').style.getPropertyValue('--at')"
        await page.find("document.querySelector('.crop input').focus()")
        for _ in range(3):
            await page.press("ArrowLeft")
        assert await page.find(at) == "47%"
        box = "(() => { const b = document.querySelector('.frames').getBoundingClientRect(); return "
        await page.find("document.querySelector('.frames').scrollIntoView({block: 'center'})")
        x, y, width = await page.find(box + "[b.x, b.y + b.height / 2, b.width]; })()")
        await page.drag((x + 0.5 * width, y), (x + 0.25 * width, y))
        assert await page.find(at) == "25%"

        told = "[document.querySelector('.tip').hidden, document.querySelector('.tip').textContent]"
        assert (await page.find(told))[0]
        await page.find("document.querySelector('.stage svg').focus()")
        seen = []
        for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
            await page.press(key)
            seen.append((await page.find(told))[1])
        assert all(re.match(r"32632/-\d+_\d+\n(2023-\d\d-\d\d|no scene)\n.*no data \d", text) for text in seen)
        assert len(set(seen)) > 1
        await page.press("Escape")
        assert (await page.find(told))[0]
        await page.find("document.querySelector('.cells path').scrollIntoView({block: 'center'})")
        middle = "(() => { const b = document.querySelector('.cells path').getBoundingClientRect(); return "
        await page.hover(*await page.find(middle + "[b.x + b.width / 2, b.y + b.height / 2]; })()"))
        assert not (await page.find(told))[0]

    in_browser(use)


@needs_chromium
def test_thousands_of_shards_open_at_once_and_answer(finished_run, tmp_path):
    """A page that measures its cells one after another while it changes them takes minutes."""
    config = load_config(finished_run)
    cube = Cube(storage_of(config))
    told = collect_report(cube, cube_staging_of(config), config, with_scenes=False)
    (period,) = told.periods
    one = replace(period.survey.cells[0], flags=(0, 512 * 512, 0, 0, 0, 0, 0))
    cells = tuple(
        replace(one, window=one.window._replace(row=one.window.row + 512 * row, col=one.window.col + 512 * col))
        for row in range(50)
        for col in range(60)
    )
    seen = period.survey
    large = replace(period, survey=Survey(cells, seen.seen_m, seen.scenes, seen.bands, seen.places))
    path = tmp_path / "large.html"
    path.write_text(to_page(replace(told, periods=(large,))))

    async def use(page: Page) -> None:
        await page.open(path.as_uri(), 1000)
        assert await page.find("performance.timing.loadEventEnd - performance.timing.navigationStart") < 10_000
        await page.find("document.querySelector('.stage svg').focus()")
        for _ in range(4):
            await page.press("ArrowRight")
        col = (cells[0].window.col // 512) + 4  # the focus itself shows the first one
        told = await page.find("document.querySelector('.tip').textContent")
        assert told.splitlines()[0].endswith(f"_{col}")
        fill = "getComputedStyle(document.querySelector('.cells path')).fill"
        for kind, colour in (("clear", CLEAR_RAMP[-1]), ("cloudy", COLOURINGS["cloudy"][2][0])):
            await page.find(f"document.querySelector('[value={kind}]').click()")
            assert await page.find(fill) == f"rgb{rgb(colour)}"

    in_browser(use)


@needs_chromium
def test_colours_are_chosen_without_a_script(reported):
    async def choose(page: Page) -> None:
        await page.send("Emulation.setScriptExecutionDisabled", value=True)
        await page.open(reported.as_uri(), 1000)
        fill = "getComputedStyle(document.querySelector('.cells path')).fill"
        by_date = await page.find(fill)
        # What a click does; scripts of the page itself do not run.
        await page.find("document.querySelector('[value=gaps]').checked = true")
        assert await page.find(fill) != by_date
        shown = "getComputedStyle(document.querySelector('.crop img.false')).display"
        assert await page.find(shown) == "none"
        await page.find("document.querySelector('[value=false]').checked = true")
        assert await page.find(shown) == "block"
        assert await page.find("getComputedStyle(document.querySelector('.crop input')).display") == "none"
        assert await page.find("document.querySelector('.cells title').textContent.length > 10")

    in_browser(choose)
