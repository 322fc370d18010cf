"""The page about a cube: its figures are the cube's, it needs nothing but itself, and says what it cannot tell."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from small_cubes import EPSG, finish, label, month

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.commands import cli
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, PixelWindow, ShardIndex
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.publish.publications import Publication
from difffusr.pipeline.readers.report import survey
from difffusr.pipeline.readers.report.collect import collect
from difffusr.pipeline.readers.report.facts import CubeReport
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.readers.report.run_records import is_rolled_back
from difffusr.pipeline.readers.report.survey import Cell, survey_period
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.watch.pulse import RunStatus as Progress

#: Chips of 96 pixels, shards of 192 in four inner chunks: two shards by three, near 16° N 105° E.
GRID = Grid(24, 6, 192, 96)
WINDOW = PixelWindow(-720_000, 199_872, 384, 576)
SHARDS = [ShardIndex(row, col) for row in (-3750, -3749) for col in (1041, 1042, 1043)]
EVIL = "<script>alert('%POLICY%')</script>"

RNG = np.random.default_rng(3)
REFLECTANCE = RNG.gamma(4.0, 400, (len(BANDS), WINDOW.height, WINDOW.width)).astype(np.uint16) + 1
REFLECTANCE[3, :7, :5] = 0  # holds data, says quality: a zero that is one
REFLECTANCE[9, 200:210, 300:310] = 15_000  # brighter than white
QUALITY = np.full((WINDOW.height, WINDOW.width), Quality.CLEAR, np.uint8)
QUALITY[:, 400:] = Quality.CLOUDY
QUALITY[300:, 420:] = Quality.FAILED
QUALITY[:50, 500:] = Quality.NO_DATA
SOURCE = np.where(np.isin(QUALITY, (Quality.NO_DATA, Quality.FAILED)), 0, 1).astype(np.uint16)
SOURCE[:, 80:300] *= 2
HOLDS = SOURCE > 0

SCENES = [
    {"id": "S2A_48QUE_one", "datetime": "2023-01-05T03:41:21+00:00", "tile": "48QUE", "baseline": "05.09"},
    {"id": EVIL, "datetime": "2022-12-30T03:41:21+00:00", "tile": "48QUE", "baseline": "05.09"},
]
PROVENANCE = {
    "software": {"difffusr": "0.1.0"},
    "model": "6e50b793ddc6" + 52 * "0",
    "config": {"area": {"file": EVIL}, "grid": {"chip_px": 24, "overlap_px": 6, "shard_px": 192, "chunk_px": 96}},
}


def publish(folder: Path, reflectance: np.ndarray, months: tuple[int, ...] = (1,), **told: Any) -> Cube:
    """A cube of these pixels in every month."""
    storage, staging = Storage(str(folder / "cube.zarr")), Storage(str(folder / "cube.staging"))
    for number in months:
        draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(number), SCENES, told or PROVENANCE)
        target = open_target(storage, staging, draft, label(number))
        target.begin()
        writer, done = target.writer(), []
        for shard in SHARDS:
            window = GRID.shard_window(shard)
            rows = slice(window.row - WINDOW.row, window.row_stop - WINDOW.row)
            cols = slice(window.col - WINDOW.col, window.col_stop - WINDOW.col)
            data = ShardData(reflectance[:, rows, cols], QUALITY[rows, cols], SOURCE[rows, cols])
            done.append(writer.write(EPSG, shard, data))
        target.accept(done)
        planned = {(EPSG, shard) for shard in SHARDS}
        finish(target, staging, planned, planned)
        target.publish(shards_written=len(SHARDS), keep=1)
    return Cube(storage)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    """Two months of the same pixels."""
    return publish(tmp_path_factory.mktemp("report"), REFLECTANCE, (1, 2))


@pytest.fixture(scope="module")
def told(cube: Cube) -> CubeReport:
    """What is told of the first month."""
    return collect(cube, staging_of(cube), None, [label(1)])


def staging_of(cube: Cube) -> Storage:
    return Storage(cube.storage.url.replace(".zarr", ".staging"))


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command: its exit code, what it prints, its errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "report", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


# ---- figures --------------------------------------------------------------------------------------------------------


def test_each_shard_has_its_own_shares_and_its_scene(told):
    seen = told.periods[0].survey
    assert len(seen.cells) == 6
    assert told.periods[0].whole_shards
    for cell in seen.cells:
        rows = slice(cell.window.row - WINDOW.row, cell.window.row_stop - WINDOW.row)
        cols = slice(cell.window.col - WINDOW.col, cell.window.col_stop - WINDOW.col)
        assert cell.flags == tuple((QUALITY[rows, cols] == flag).sum() for flag in Quality)
        assert cell.with_data == HOLDS[rows, cols].sum()
        assert cell.scene == np.bincount(SOURCE[rows, cols].ravel(), minlength=3)[1:].argmax() + 1
    assert seen.scenes == {1: (SOURCE == 1).sum(), 2: (SOURCE == 2).sum()}
    assert seen.flags[Quality.CLOUDY] == pytest.approx((QUALITY == Quality.CLOUDY).mean())


def test_figures_of_reflectance_are_those_of_the_pixels_that_hold_data(told):
    bands = told.periods[0].survey.bands
    values = REFLECTANCE[:, HOLDS] * 1e-4
    assert bands.pixels == HOLDS.sum()
    np.testing.assert_allclose(bands.mean, values.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(bands.std, values.std(axis=1), rtol=1e-6)
    np.testing.assert_allclose(bands.zeros, (values == 0).mean(axis=1))
    assert bands.zeros[3] > 0
    np.testing.assert_allclose(bands.share_above(1.0), (REFLECTANCE[:, HOLDS] > 10_000).mean(axis=1))
    assert bands.share_above(1.0)[9] > 0
    for percent in (1, 50, 99):
        expected = np.percentile(values, percent, axis=1, method="inverted_cdf")
        np.testing.assert_allclose(bands.percentile(percent), expected, atol=1e-12)
    edges = np.linspace(0, 0.6, 61)
    expected = np.stack([np.histogram(REFLECTANCE[i, HOLDS], np.round(edges * 1e4))[0] for i in range(len(BANDS))])
    # NumPy's last bin includes its upper edge.
    np.testing.assert_allclose(bands.histogram(edges)[:, :-1], expected[:, :-1] / HOLDS.sum())


def test_of_a_large_cube_a_bounded_part_is_read_spread_over_every_shard(cube, monkeypatch):
    monkeypatch.setattr(survey, "MOST_CHUNKS", 12)
    monkeypatch.setattr(survey, "MOST_SAMPLED", 5)
    monkeypatch.setattr(survey, "_levels", lambda *_: [])  # a cube without overviews
    seen = survey_period(cube, label(1), 100, None)
    assert sum(cell.looked_at for cell in seen.cells) == 12 * 96**2
    assert {cell.looked_at for cell in seen.cells} == {2 * 96**2}
    assert seen.bands.chunks == 5


def test_an_overview_is_read_instead_where_there_is_one(cube, monkeypatch):
    overview = cube.zones[EPSG].store
    quality = np.asarray(zarr.open_array(overview, path=f"{EPSG}/1/quality", mode="r")[0])
    monkeypatch.setattr(survey, "MOST_CHUNKS", 12)
    seen = survey_period(cube, label(1), 100, None)
    assert seen.seen_m == 5
    assert sum(cell.looked_at for cell in seen.cells) == quality.size
    assert seen.flags == {flag: pytest.approx((quality == flag).mean()) for flag in Quality}
    assert seen.bands.pixels == HOLDS.sum()  # reflectance is that of 2.5 m all the same


def test_many_shards_share_a_cell(cube):
    seen = survey_period(cube, label(1), 3, None)
    assert [cell.shards for cell in seen.cells] == [2, 4]  # squares of two, cut at whole numbers of them
    assert sum(cell.looked_at for cell in seen.cells) == QUALITY.size


def test_a_step_along_the_borders_of_shards_or_chips_is_found_where_it_is(told, tmp_path):
    seams = {"none": told.periods[0].seams}
    for name, offset, step in (("shards", 0, 192), ("chips", 12, 72)):
        cols = WINDOW.col + np.arange(WINDOW.width)
        raised = ((cols - offset) // step % 2 * 3000).astype(np.uint16)
        cube = publish(tmp_path / name, REFLECTANCE + raised)
        seams[name] = collect(cube, staging_of(cube), None, [label(1)]).periods[0].seams
    chips = {name: np.array([band.seam_ratio for band in found.bands]) for name, found in seams.items()}
    assert np.abs(chips["none"] - 1).max() < 0.1
    assert np.abs(seams["none"].shard_ratio - 1).max() < 0.2
    assert seams["shards"].shard_ratio.min() > 1.3
    assert chips["chips"].min() > 1.2


def test_pictures_show_clear_ground_and_its_average(told):
    crops = told.periods[0].crops
    assert crops
    for crop in crops:
        rows = slice(crop.window.row - WINDOW.row, crop.window.row_stop - WINDOW.row)
        cols = slice(crop.window.col - WINDOW.col, crop.window.col_stop - WINDOW.col)
        order = [BANDS.index(band) for band in ("B04", "B03", "B02", "B08")]
        np.testing.assert_allclose(crop.after, REFLECTANCE[order, rows, cols] * 1e-4, rtol=1e-6)
        assert (QUALITY[rows, cols] == Quality.CLEAR).mean() >= 0.95
        n = crop.window.height // 4
        averaged = crop.after.reshape(4, n, 4, n, 4).mean(axis=(2, 4))
        np.testing.assert_allclose(crop.before, averaged, rtol=1e-5)
        assert not crop.measured


# ---- what cannot be told --------------------------------------------------------------------------------------------


def test_without_a_staging_folder_the_page_says_what_is_missing(cube, told, tmp_path):
    page = to_page(collect(cube, Storage(str(tmp_path / "gone")), None, [label(1)]))
    assert page.count("Missing from this report") == 2
    assert f"The history of publications is not at {tmp_path}/gone" in page
    assert f"The plan is not at {tmp_path}/gone/runs/2023-01" in page
    assert "The residual is not known: no chip could be compared with its scenes." in page
    assert "The run's folder is deleted" in page
    assert np.isfinite([band.seam_ratio for band in told.periods[0].seams.bands]).all()


def test_without_its_grid_a_cube_still_has_seams_of_shards(tmp_path):
    cube = publish(tmp_path, REFLECTANCE, made="by a test")
    seams = collect(cube, staging_of(cube), None).periods[0].seams
    assert seams.bands == []
    assert seams.borders == 7
    assert np.isfinite(seams.shard_ratio).all()
    page = to_page(collect(cube, staging_of(cube), None))
    assert "The cube does not say where its chips are" in page
    assert "too few to judge" in page


def test_a_plan_that_readers_do_not_see_any_more_is_not_told_of():
    def published(number: int, period: str, restores: int | None = None) -> Publication:
        kind = "period" if restores is None else "rollback"
        return Publication(number, "", kind, period, {}, {}, 0, restores)

    first, revised, back = published(1, "Jan"), published(2, "Jan"), published(3, "Jan", restores=1)
    assert not is_rolled_back([], "Jan")
    assert not is_rolled_back([revised, first], "Jan")
    assert is_rolled_back([back, revised, first], "Jan")
    assert is_rolled_back([published(4, "Feb"), back, revised, first], "Jan")
    assert not is_rolled_back([published(5, "Jan"), published(4, "Feb"), back, revised, first], "Jan")
    assert not is_rolled_back([published(4, "Feb"), back, revised, first], "Feb")


def test_cost_and_failures_are_those_of_the_run_and_a_price_that_is_missing_is_said(told):
    progress = Progress("r", "2023-01", "published", gpu_hours=3.5, cpu_hours=40.25, cost=1234.5, currency="<EUR>")
    run = {"chips": {"computed": 1200, "failed": 40}, "seconds": {"publish": 1.0, "chips": 3.0}}
    run["failed"] = {f"32648/0_{i:02d}": "<b>no pixels</b>" for i in range(40)}
    page = to_page(replace(told, periods=(replace(told.periods[0], progress=progress, run=run),)))
    assert "1,234.50 &lt;EUR&gt;, by costs.prices for GPUs and cores" in page
    assert "3.50 GPU-hours, 40.25 core-hours" in page
    assert "1,200 computed, 0 reused, 0 skipped, 40 failed" in page
    assert page.count("&lt;b&gt;no pixels&lt;/b&gt;") == 30
    assert "And 10 more chips." in page
    assert page.index(">chips</th><td>3.00</td><td>75.0 %") < page.index(">publish</th><td>1.00</td><td>25.0 %")
    unpriced = replace(told.periods[0], progress=replace(progress, cost=0.0))
    assert "not known: the configuration has no prices" in to_page(replace(told, periods=(unpriced,)))


# ---- the page -------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


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
    assert to_page(collect(cube, staging_of(cube), None, [label(1)])) == to_page(told)


def test_periods_are_chosen_between(cube):
    page = to_page(collect(cube, staging_of(cube), None))
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


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_writes_one_file_and_says_where(cube, report, tmp_path):
    code, said, error = report(cube.storage.url, "--output", tmp_path / "page.html", "--period", "2023-02")
    assert (code, error) == (0, "")
    assert re.fullmatch(rf"{tmp_path}/page\.html  0\.\d\d MB\n", said)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert '<h2 id="h0">2023-02</h2>' in page


@pytest.mark.parametrize(
    ("words", "expected", "code"),
    [
        (("CUBE", "--period", "2024-01"), "--period: the cube has no 2024-01; it has 2023-01, 2023-02", 2),
        (("CUBE", "--output", "HERE/none/page.html"), "cannot be written (no such folder); choose another --output", 1),
        (("CUBE", "--output", "HERE"), "cannot be written (Is a directory); choose another --output", 1),
        (("HERE/none.zarr",), "holds no cube; give the URL that store.url names", 1),
        (("HERE/none.yaml",), "none.yaml: cannot be read", 2),
    ],
)
def test_what_cannot_be_told_of_is_one_line(words, expected, code, cube, report, tmp_path):
    ended, _, error = report(*(w.replace("CUBE", cube.storage.url).replace("HERE", str(tmp_path)) for w in words))
    assert (ended, error.count("\n")) == (code, 1)
    assert expected in error


def test_a_damaged_shard_is_one_line(cube, report, tmp_path):
    shutil.copytree(cube.storage.url, tmp_path / "cube.zarr")
    shard = tmp_path / "cube.zarr" / str(EPSG) / "0" / "reflectance" / "c" / "0" / "0" / "0" / "0"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    code, _, error = report(tmp_path / "cube.zarr", "--output", tmp_path / "page.html")
    assert (code, error.count("\n")) == (1, 1)
    assert "`difffusr verify` names damaged shards" in error
    assert not (tmp_path / "page.html").exists()
