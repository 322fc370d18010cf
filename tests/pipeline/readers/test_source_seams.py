"""Borders between dates and granules are seen where scenes differ, blended or not, and only there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import rasterio
from beside import SHARED
from numpy.typing import NDArray
from rasterio.warp import transform
from scipy import ndimage
from source_mosaics import EPSG, FIRST, MEASURED, SMALL, Mosaic, checkerboard, ground, mosaic, shifted, size_of

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.geo.grid import Grid
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.readers.seams import seam_ratios
from difffusr.pipeline.readers.source_verdicts import judge_sources, worst_border
from difffusr.pipeline.readers.verdicts import SEAM_RANGE, SourceSeams, shown_kinds, shows_nothing

CHIPS = (8, 8)
#: Two granules of one pass, then another orbit.
FACTS: Mapping[int, Mapping[str, str]] = {
    1: {"id": "S2B_33TWM_20230813", "datetime": "2023-08-13T10:10:51+00:00"},
    2: {"id": "S2A_33TWM_20230815", "datetime": "2023-08-15T10:01:02+00:00"},
    3: {"id": "S2A_33TWL_20230815", "datetime": "2023-08-15T10:01:17+00:00"},
}
BLUE = {"B02": 80}


def made(
    steps: Mapping[str, int],
    choose: Callable[[int, int], int] = checkerboard,
    patches: Callable[[int, int, int], NDArray[np.bool_]] | None = None,
    *,
    grid: Grid = SMALL,
    chips: tuple[int, int] = CHIPS,
    strength: float = 1.0,
) -> Mosaic:
    """Scenes 1, 2, 3 of the same ground; 2 and 3 differ from 1 by steps in DN."""
    first = ground(*size_of(grid, chips), strength=strength)
    other = shifted(first, steps) if steps else first
    return mosaic(grid, chips, {1: first, 2: other, 3: other}, choose, patches)


def judged(made: Mosaic, kind: str = "all", facts: Mapping[int, Mapping[str, str]] = FACTS) -> SourceSeams:
    return next(seams for seams in judge_sources(made.borders(), facts) if seams.kind == kind)


def off(seams: SourceSeams) -> set[str]:
    return {band.band for band in seams.bands if not band.ok}


@pytest.fixture(scope="module")
def halves() -> Mosaic:
    """One scene in the west, the other in the east."""
    return made(BLUE, lambda _, col: 1 + col // 4)


def ratios(seams: SourceSeams) -> NDArray[np.float64]:
    return np.array([band.ratio for band in seams.bands])


def holes(row: int, col: int, cells: int) -> NDArray[np.bool_]:
    """A hole in every chip, as a cloud leaves it: 120 to 180 m, not at its edge."""
    out = np.zeros((cells, cells), bool)
    top, left = 2 + (row + col) % 2, 2 + row % 3
    out[top : top + 3, left : left + 2 + col % 2] = True
    return out


def diagonal(row: int, col: int, cells: int) -> NDArray[np.bool_]:
    """The edge of a swath in cells of 60 m, aslant through every chip."""
    return np.add.outer(np.arange(cells), np.arange(cells)) > cells - 2 + (row + col) % 3


@pytest.mark.parametrize("pair", MEASURED)
def test_blended_borders_of_dates_that_differ_as_measured_are_off_in_the_bands_that_differ(pair):
    steps = MEASURED[pair]
    found = judged(made(steps), "dates")
    clearly = {band for band, step in steps.items() if abs(step) >= 50 and (band != "B08" or step > 100)}
    assert clearly
    assert clearly <= off(found) <= {band for band, step in steps.items() if abs(step) > 10}
    at = [BANDS.index(band) for band in clearly]
    assert ratios(found)[at].min() > 1.25
    assert np.abs(np.delete(ratios(found), [BANDS.index(band) for band in steps]).mean() - 1) < 0.06


@pytest.mark.parametrize(
    ("grid", "chips"),
    [(SMALL, CHIPS), (Grid(24, 6), (10, 10)), (Grid(36, 12), (9, 9)), (Grid(60, 18), (7, 7)), (Grid(96, 24), (5, 5))],
    ids=lambda value: f"{value.chip_px} px, {value.overlap_px} shared" if isinstance(value, Grid) else "",
)
def test_whatever_the_grid_differences_are_seen_and_the_same_ground_is_not(grid, chips):
    different = judged(made({"B02": 143, "B08": 500}, grid=grid, chips=chips))
    assert off(different) == {"B02", "B08"}
    same = judged(made({}, grid=grid, chips=chips))
    assert not off(same)
    assert SEAM_RANGE[0] < ratios(same).mean() < SEAM_RANGE[1]


@pytest.mark.parametrize("choose", [checkerboard, lambda row, _: 1 + row % 2, lambda _, col: 1 + col // 2 % 2],
                         ids=["squares", "rows", "columns"])  # fmt: skip
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_a_step_in_blue_is_seen_in_blue_alone_and_where_there_is_none_nothing_is(choose, strength):
    assert off(judged(made(BLUE, choose, strength=strength))) == {"B02"}
    same = judged(made({}, choose, strength=strength))
    assert not off(same)
    assert SEAM_RANGE[0] < ratios(same).mean() < SEAM_RANGE[1]


@pytest.mark.parametrize("patches", [holes, diagonal], ids=["holes", "swath's edge"])
def test_hard_borders_within_chips_are_seen(patches):
    different = judged(made(BLUE, lambda *_: 1, patches), "dates")
    assert different.borders > 60
    assert off(different) == {"B02"}
    same = judged(made({}, lambda *_: 1, patches), "dates")
    assert not off(same)
    assert SEAM_RANGE[0] < ratios(same).mean() < SEAM_RANGE[1]


def test_what_differs_too_little_to_be_seen_on_rough_ground_is_not_off():
    """What a balance leaves: 0.0010 in the visible, 0.0040 in the near infrared."""
    assert not off(judged(made({"B02": 10, "B03": -10, "B04": 10, "B08": -40})))


def test_the_same_step_is_seen_on_smooth_ground():
    assert "B02" in off(judged(made({"B02": 26}, strength=0.3)))


@pytest.mark.parametrize(
    ("second", "kind"),
    [("2023-08-15T10:01:02+00:00", "dates"), ("2023-08-13T10:11:06Z", "granules"), ("2023-08-14T10:01:02", "dates"),
     ("2023-08-12T22:30:00+00:00", "granules"), ("2024-08-13T10:10:51+00:00", "dates"), ("", ""), (None, "")],
)  # fmt: skip
def test_borders_of_one_pass_are_those_of_granules_and_unknown_times_count_in_all_alone(second, kind):
    facts = {1: FACTS[1], 2: {"id": "other"} if second is None else {"id": "other", "datetime": second}}
    borders = made(BLUE, chips=(3, 3)).borders()
    counts = {seams.kind: seams.borders for seams in judge_sources(borders, facts)}
    expected = {name: len(borders) if name in (kind, "all") else 0 for name in ("dates", "granules", "all")}
    assert counts == expected


def test_granules_and_dates_are_told_apart():
    """In the west a date of its own, in the middle and the east two granules of the next that differ."""
    first = ground(*size_of(SMALL, CHIPS))
    scenes = {1: first, 2: first, 3: shifted(first, BLUE)}
    found = {
        seams.kind: seams
        for seams in judge_sources(mosaic(SMALL, CHIPS, scenes, lambda _, col: 1 + col // 3).borders(), FACTS)
    }
    assert {kind: seams.borders for kind, seams in found.items()} == {"dates": 8, "granules": 8, "all": 16}
    assert "B02" in off(found["granules"])
    assert "B02" not in off(found["dates"])


@pytest.mark.parametrize(
    "quality",
    [Quality.NO_DATA, Quality.FAILED, Quality.CLOUDY, Quality.INTERPOLATED, Quality.INTERPOLATED_CLOUD],
    ids=lambda quality: quality.name.lower(),
)
def test_what_is_not_of_the_networks_or_under_cloud_is_no_border(halves, quality):
    """Masked are 60 m on both sides along the middle border, then all of it but what is of one row of chips."""
    middle = 4 * SMALL.chip_step + SMALL.overlap_px * 2
    masked = np.zeros(halves.source.shape, bool)
    masked[:, middle - 24 : middle + 24] = True
    assert len(halves.borders()) == 8
    assert halves.marked(masked, quality).borders() == []
    inset = SMALL.overlap_px * 2
    masked[3 * SMALL.chip_step + inset : 4 * SMALL.chip_step + inset] = False
    (left,) = halves.marked(masked, quality).borders()
    assert left.squares == SMALL.chip_step // 12


def test_filled_pixels_are_compared_and_their_borders_are_where_they_are(halves):
    border = halves.marked(halves.source == 2, Quality.FILLED).borders()[2]
    assert border.sources == (1, 2)
    assert border.col == halves.window.col + 4 * SMALL.chip_step + SMALL.overlap_px * 2
    middle = halves.window.row + 2 * SMALL.chip_step + SMALL.chip_side / 2
    assert border.row == pytest.approx(middle, abs=1)
    assert border.squares == SMALL.chip_step // 12
    assert border.step[BANDS.index("B02")] == pytest.approx(80, abs=60)


def test_without_borders_between_scenes_the_ratio_is_not_known_and_nothing_is_off():
    for seams in judge_sources(made(BLUE, lambda *_: 1, chips=(3, 3)).borders(), FACTS):
        assert (seams.borders, seams.ok) == (0, True)
        assert np.isnan(ratios(seams)).all()
        assert {band["ratio"] for band in seams.to_dict()["bands"]} == {None}
    assert worst_border([], FACTS) is None
    assert shown_kinds(judge_sources([], FACTS)) == []


def test_few_borders_of_the_same_ground_are_hardly_ever_off_by_chance():
    borders = []
    for seed in (1, 2):
        same = ground(*size_of(SMALL, (6, 6)), seed=seed)
        borders += mosaic(SMALL, (6, 6), {1: same, 2: same}, checkerboard).borders()
    rng = np.random.default_rng(0)
    chosen = [rng.choice(len(borders), 4, replace=False) for _ in range(60)]
    seams = [judge_sources([borders[i] for i in some], FACTS)[0] for some in chosen]
    assert np.mean([len(off(few)) for few in seams]) / len(BANDS) < 0.02


@pytest.mark.parametrize("borders", [3, 4, 6])
def test_few_borders_that_clearly_differ_are_off(borders):
    found = judged(made({"B02": 1500}, lambda _, col: 1 + col // 2, chips=(borders, 4)))
    assert found.borders == borders
    assert "B02" in off(found)


def test_one_border_alone_is_not_judged():
    found = judged(made({"B02": 500}, lambda _, col: 1 + col // 2, chips=(1, 4)))
    assert found.borders == 1
    assert found.ok
    assert found.bands[BANDS.index("B02")].ratio > 2
    assert found.to_dict()["bands"][0]["error"] is None


@pytest.mark.parametrize(("step", "seamless"), [(0, True), (3, True), (80, False)])
def test_on_ground_without_any_texture_a_step_is_off_and_rounding_is_not(step, seamless):
    flat = np.full((len(BANDS), *size_of(SMALL, (4, 4))), 700, np.uint16)
    found = judged(mosaic(SMALL, (4, 4), {1: flat, 2: flat + np.uint16(step)}, checkerboard))
    assert found.borders == 24
    assert found.ok == seamless


def test_the_most_visible_border_is_found():
    """Among chips that do not differ one does."""
    first = ground(*size_of(SMALL, (5, 5)))
    scenes = {1: first, 2: first, 3: shifted(first, {"B11": 900})}
    whole = mosaic(SMALL, (5, 5), scenes, lambda row, col: 3 if (row, col) == (3, 2) else 1 + (row + col) % 2)
    found = worst_border(whole.borders(), FACTS)
    assert found is not None
    assert (found.band, found.epsg) == ("B11", EPSG)
    assert FACTS[3]["id"] in found.scenes
    assert 0.06 < found.step < 0.12
    assert found.usual < 0.02
    left, bottom, right, top = SMALL.chip_window(FIRST._replace(row=FIRST.row + 3, col=FIRST.col + 2)).bounds_m(EPSG)
    (x,), (y,) = transform("EPSG:4326", f"EPSG:{EPSG}", [found.lon], [found.lat])
    assert left - 1 <= x <= right + 1
    assert bottom - 1 <= y <= top + 1
    assert f"{found.lat:.4f}° N" in found.words


def test_scenes_that_the_cube_does_not_know_are_compared_all_the_same():
    borders = made(BLUE, chips=(3, 3)).borders()
    found = worst_border(borders, {})
    assert found is not None
    assert found.scenes == ("scene 1", "scene 2")
    assert judge_sources(borders, {})[2].borders == len(borders)


SCENES = {
    13: SHARED / "data/balance/tiles_120m/S2B_33TWM_20230813_0_L2A",
    15: SHARED / "data/overviews_120m/items/S2A_33TWM_20230815_0_L2A",
}
REAL = ("B02", "B03", "B04", "B08")


@pytest.fixture(scope="module")
def august() -> dict[int, NDArray[np.uint16]]:
    """(5, 300, 300) REAL bands and SCL of two dates of a tile, a pixel for every 120 m."""
    if missing := [str(folder) for folder in SCENES.values() if not folder.exists()]:
        pytest.skip(f"no real scenes: {missing[0]} is not there")
    found = {}
    for day, folder in SCENES.items():
        files = [next(path for path in folder.iterdir() if path.stem == band) for band in (*REAL, "SCL")]
        with rasterio.Env(CPL_LOG="/dev/null"):
            found[day] = np.stack([rasterio.open(file).read(1)[500:800, 500:800] for file in files])
    return found


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_checkerboard_of_two_real_dates_is_off_and_with_their_medians_made_equal_it_is_not(august):
    """Every pixel of 120 m stands for a square of 30 m: ground four times as rough as it is."""
    clear = np.all(
        [ndimage.binary_erosion(np.isin(scene[4], (4, 5, 6, 7)), iterations=2) for scene in august.values()], 0
    )
    first, second = (scene[:4].astype(np.int64) for scene in august.values())
    shift = np.median((second - first)[:, clear], axis=1).astype(int)
    chips = (24, 24)
    height, width = size_of(SMALL, chips)

    def measured(other: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        enlarged = {
            number: np.clip(scene, 1, 65_534).astype(np.uint16).repeat(12, 1).repeat(12, 2)[:, :height, :width]
            for number, scene in ((1, first), (2, other))
        }
        blended = mosaic(SMALL, chips, enlarged, checkerboard)
        clouds = ~clear.repeat(12, 0).repeat(12, 1)[:height, :width]
        return seam_ratios([border.steps for border in blended.marked(clouds, Quality.CLOUDY).borders()])

    found, errors = measured(second)
    assert [shows_nothing(*pair) for pair in zip(found, errors, strict=True)][1:] == [False, False, False]
    found, errors = measured(second - shift[:, None, None])
    assert all(shows_nothing(*pair) for pair in zip(found, errors, strict=True))
    assert ((found > SEAM_RANGE[0]) & (found < SEAM_RANGE[1])).all()
