"""The world seen from two orbits: what its scenes differ by is what was put in, and of the measured size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from numpy.typing import NDArray
from two_orbit_scenes import (
    SMALL_M,
    bounds_of,
    classes,
    granule_of,
    ground,
    home_of,
    item_of,
    nadir_factor,
    reflectance,
    scene_id,
)

from difffusr.kernels.bands import BANDS, GSD_M
from difffusr.pipeline.ground.pixels import CLEAR_CLASSES
from difffusr.pipeline.scenes.item import scene_from_item
from difffusr.pipeline.scenes.synthetic import two_orbits as two_orbits_module
from difffusr.pipeline.scenes.synthetic.orbits import ACQUISITIONS, FROM_EAST, HAZE_COLOUR
from difffusr.pipeline.scenes.synthetic.palette import LANDCOVER, SIZE_M, TILES
from difffusr.pipeline.scenes.synthetic.sensor import observe
from difffusr.pipeline.scenes.synthetic.two_orbits import TwoOrbits, mirrored, write_two_orbits

HAZY, WEST, EAST, _, LAST = (day.date for day in ACQUISITIONS)
TILE = pytest.mark.parametrize("tile", [tile for tile, _, _ in TILES])


def clear_in(scl: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.isin(scl, CLEAR_CLASSES)


def difference(world: TwoOrbits, tile: str, dates: tuple[str, str], band: str, nadir: bool = False) -> float:
    """Median of the second date's reflectance minus the first's, × 10 000, where both are clear."""
    scenes = [scene_id(world, date, tile) for date in dates]
    both = np.logical_and(*(ground(world, scene, GSD_M[band]) for scene in scenes))
    assert both.mean() > 0.2
    first, second = (
        reflectance(world, scene, band) * (nadir_factor(world, scene, band) if nadir else 1) for scene in scenes
    )
    return float(np.median((second - first)[both]) * 10_000)


@TILE
@pytest.mark.parametrize(
    ("band", "low", "high"), [("B02", 26, 140), ("B03", 70, 105), ("B04", 55, 95), ("B08", 200, 275)]
)
def test_the_orbits_differ_as_much_as_real_ones_and_half_as_much_at_nadir(
    two_orbits: TwoOrbits, tile: str, band: str, low: int, high: int
) -> None:
    before = difference(two_orbits, tile, (WEST, EAST), band)
    after = difference(two_orbits, tile, (WEST, EAST), band, nadir=True)
    assert low <= before <= high
    assert 0 < after < (0.25 if band == "B08" else 0.7) * before


@TILE
@pytest.mark.parametrize(("band", "expected", "within"), [("B02", 140, 35), ("B03", 70, 20), ("B04", 60, 18)])
def test_on_one_orbit_haze_alone_differs_and_angles_do_not_help(
    two_orbits: TwoOrbits, tile: str, band: str, expected: int, within: int
) -> None:
    found = difference(two_orbits, tile, (EAST, LAST), band)
    assert found == pytest.approx(expected, abs=within)
    assert difference(two_orbits, tile, (EAST, LAST), band, nadir=True) > 0.9 * found
    assert abs(difference(two_orbits, tile, (EAST, LAST), "B08")) < 25


@TILE
def test_haze_falls_from_blue_to_red_and_spares_the_infrared(two_orbits: TwoOrbits, tile: str) -> None:
    added = {band: difference(two_orbits, tile, (EAST, HAZY), band) for band in ("B02", "B03", "B04", "B08", "B11")}
    assert 500 < added["B02"] < 850
    assert added["B03"] == pytest.approx(0.5 * added["B02"], rel=0.15)
    assert added["B04"] == pytest.approx(0.42 * added["B02"], rel=0.15)
    assert abs(added["B08"]) < 30
    assert abs(added["B11"]) < 30
    assert (np.diff(HAZE_COLOUR) <= 0).all()


@TILE
def test_the_classification_misses_most_of_the_haze(two_orbits: TwoOrbits, tile: str) -> None:
    hazy = scene_id(two_orbits, HAZY, tile)
    clear = clear_in(classes(two_orbits, hazy))
    assert clear.mean() > 0.75
    assert not np.isin(classes(two_orbits, scene_id(two_orbits, LAST, tile)), (10,)).any()
    # and what it takes for clear is hazy: over the darkest ground blue is several times that of the day without
    blue = [reflectance(two_orbits, scene_id(two_orbits, date, tile), "B02") for date in (HAZY, WEST)]
    shown = np.logical_and(*(ground(two_orbits, scene_id(two_orbits, date, tile), 10) for date in (HAZY, WEST)))
    assert np.quantile(blue[0][shown], 0.02) > 1.8 * np.quantile(blue[1][shown], 0.02)


def test_haze_lies_unevenly_but_smoothly(two_orbits: TwoOrbits) -> None:
    scene, other = (scene_id(two_orbits, date, "32TMT") for date in (HAZY, EAST))
    added = reflectance(two_orbits, scene, "B01") - reflectance(two_orbits, other, "B01")
    both = ground(two_orbits, other, 20).reshape(added.shape[0], 3, added.shape[1], 3).all((1, 3))
    assert np.ptp(np.percentile(added[both], (5, 95))) > 0.02
    steps = np.abs(np.diff(added, axis=1))[both[:, 1:] & both[:, :-1]]
    assert np.median(steps) < 0.1 * np.ptp(added[both])


def test_every_place_is_clear_on_some_day_without_thick_haze_and_no_day_everywhere(two_orbits: TwoOrbits) -> None:
    for tile, _, _ in TILES:
        days = [clear_in(classes(two_orbits, scene_id(two_orbits, day.date, tile))) for day in ACQUISITIONS[1:]]
        assert np.mean(np.any(days, axis=0)) > 0.999, tile
    for day in ACQUISITIONS:
        both = [clear_in(classes(two_orbits, scene_id(two_orbits, day.date, tile))) for tile, _, _ in TILES]
        assert min(clear.mean() for clear in both) < 1
    clouded = [day for day in ACQUISITIONS if day.clouds]
    for day in clouded:
        seen = {
            code
            for tile, _, _ in TILES
            for code in np.unique(classes(two_orbits, scene_id(two_orbits, day.date, tile)))
        }
        assert {3, 8, 9} <= seen


@pytest.mark.parametrize("band", ["B02", "B05", "B08", "B09", "B12"])
def test_at_nadir_a_clear_day_is_the_truth_through_the_sensor(two_orbits: TwoOrbits, band: str) -> None:
    with rasterio.open(two_orbits.truth[WEST]) as file:
        truth = observe(file.read(BANDS.index(band) + 1).astype(np.float32) / 10_000, band)
    scene = scene_id(two_orbits, WEST, "32TMT")
    pixels = reflectance(two_orbits, scene, band) * nadir_factor(two_orbits, scene, band)
    shown = ground(two_orbits, scene, 20)
    shown = (
        shown.repeat(2, 0).repeat(2, 1) if GSD_M[band] == 10
        else shown if GSD_M[band] == 20
        else shown.reshape(pixels.shape[0], 3, pixels.shape[1], 3).all((1, 3))
    )  # fmt: skip
    error = (pixels - truth[:, : pixels.shape[1]])[shown]
    assert np.abs(np.median(error)) < 0.004
    assert np.std(error) < 0.006


def test_the_harvest_is_in_the_truth_and_nothing_else_is(two_orbits: TwoOrbits) -> None:
    before, after = (two_orbits.truth[date] for date in (EAST, LAST))
    assert list(two_orbits.truth) == [day.date for day in ACQUISITIONS]
    assert {two_orbits.truth[day.date] for day in ACQUISITIONS if day.mown} == {after} != {before}
    with rasterio.open(before) as first, rasterio.open(after) as second, rasterio.open(two_orbits.landcover) as codes:
        assert first.descriptions == BANDS
        change = np.abs(second.read().astype(int) - first.read())[BANDS.index("B08")]
        code = {name: number for number, name in LANDCOVER.items()}
        landcover = codes.read(1)
    assert 0.03 < (change > 300).mean() < 0.25
    assert (change > 300)[np.isin(landcover, [code["crop"], code["grassland"]])].mean() > 0.05
    assert (change > 100)[np.isin(landcover, [code["forest"], code["water"], code["building"]])].mean() < 0.02


@pytest.mark.parametrize("day", ACQUISITIONS, ids=lambda day: day.date)
@TILE
def test_items_become_scenes_and_lead_to_their_angles(two_orbits: TwoOrbits, day, tile: str) -> None:
    name = scene_id(two_orbits, day.date, tile)
    item = item_of(two_orbits, name)
    scene = scene_from_item(item, str(home_of(two_orbits, name) / f"{name}.json"))
    assert (scene.tile, scene.epsg, scene.datetime.date().isoformat()) == (tile, two_orbits.epsg, day.date)
    assert scene.product_uri is not None
    assert f"_R{day.orbit.number:03d}_T{tile}_" in scene.product_uri
    assert {asset.offset_dn for asset in scene.assets.values()} == {-day.offset_dn}
    assert item["assets"]["granule_metadata"]["href"] == "./granule_metadata.xml"
    assert scene.granule == str(home_of(two_orbits, name) / "granule_metadata.xml")
    assert scene.angles is not None
    assert scene.angles.view_azimuth == pytest.approx(item["properties"]["view:azimuth"])
    granule, properties = granule_of(two_orbits, name), item["properties"]
    west, south, east, north = bounds_of(two_orbits, name)
    row, col = round((granule.top - (south + north) / 2) / 5000), round(((west + east) / 2 - granule.left) / 5000)
    near = [view for view in granule.views["B08"] if np.isfinite(view.zenith[row, col])]
    assert min(abs(view.zenith[row, col] - properties["view:incidence_angle"]) for view in near) < 0.3
    assert min(abs(view.azimuth[row, col] - properties["view:azimuth"]) for view in near) < 1
    assert granule.sun.zenith[row, col] == pytest.approx(90 - properties["view:sun_elevation"], abs=0.1)
    assert granule.sun.azimuth[row, col] == pytest.approx(properties["view:sun_azimuth"], abs=0.1)


def test_both_tiles_of_a_day_lie_in_one_datatake_and_the_orbits_in_two(two_orbits: TwoOrbits) -> None:
    takes = {}
    for name in two_orbits.conditions:
        takes[name] = scene_from_item(item_of(two_orbits, name), str(home_of(two_orbits, name) / "i.json")).datatake
    assert len(takes) == len(ACQUISITIONS) * 2
    assert len(set(takes.values())) == len(ACQUISITIONS)
    orbits = {two_orbits.conditions[name].orbit for name in takes}
    assert len(orbits) == 2


def test_the_catalogue_is_valid_and_the_conditions_are_those_of_its_items(two_orbits: TwoOrbits) -> None:
    catalog = pystac.Catalog.from_file(str(two_orbits.catalog))
    items = {item.id: item for item in catalog.get_items(recursive=True)}
    assert set(items) == set(two_orbits.conditions)
    for name, item in items.items():
        assert Path(item.assets["granule_metadata"].get_absolute_href() or "").is_file()
        conditions = two_orbits.conditions[name]
        assert f"_R{conditions.orbit:03d}_" in item.properties["s2:product_uri"]
        assert conditions.mown == (item.datetime.date().isoformat() in (ACQUISITIONS[3].date, LAST))
        assert (conditions.orbit == FROM_EAST.number) == (item.properties["view:azimuth"] < 180)


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_a_seed_decides_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_orbits_module, "ACQUISITIONS", (ACQUISITIONS[1], ACQUISITIONS[4]))  # enough
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        write_two_orbits(tmp_path / name, seed=seed, size_m=(600, 600))
    one, again, other = (digest(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again != other


@pytest.mark.parametrize("size_m", [(1200, 1830), (300, 1200), (540, 600), (600, 0)])
def test_a_world_off_the_lattice_or_too_small_is_refused_before_anything_is_written(tmp_path: Path, size_m) -> None:
    with pytest.raises(ValueError, match="multiples of 60 m and at least 600 m"):
        write_two_orbits(tmp_path / "world", size_m=size_m)
    assert not (tmp_path / "world").exists()


@pytest.mark.parametrize("gsd_m", [2.5, 10, 20, 60])
@pytest.mark.parametrize("size_m", [(600, 1200), (1200, 660), (1380, 2460)])
def test_larger_ground_is_the_smaller_one_and_its_mirror_image_without_a_step(gsd_m: float, size_m) -> None:
    own = np.arange(round(600 / gsd_m) * round(660 / gsd_m)).reshape(round(600 / gsd_m), -1)
    found = mirrored(own, size_m, gsd_m)
    assert found.shape == (round(size_m[0] / gsd_m), round(size_m[1] / gsd_m))
    whole = np.pad(
        own, [(0, round(side / gsd_m)) for side in size_m], mode="symmetric"
    )[: found.shape[0], : found.shape[1]]  # fmt: skip
    assert np.array_equal(found, whole)


def test_ground_is_generated_up_to_the_default_size() -> None:
    assert all(small < default for small, default in zip(SMALL_M, SIZE_M, strict=True))
    stack = np.arange(24).reshape(2, 3, 4)
    assert mirrored(stack, (30, 40), 10) is stack
