"""The made-up world: the same for the same seed, of plausible ground, written with its truth."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from small_world import SMALL_M

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.scenes.synthetic.palette import DATES, LANDCOVER, LEFT_M, SIZE_M, TOP_M
from difffusr.pipeline.scenes.synthetic.world import generate_world, write_demo_world


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world):
    again, other = generate_world(size_m=SMALL_M), generate_world(seed=8, size_m=SMALL_M)
    assert np.array_equal(world.reflectance, again.reflectance)
    assert np.array_equal(world.later, again.later)
    assert np.array_equal(world.landcover, again.landcover)
    assert not np.array_equal(world.reflectance, other.reflectance)


def test_the_truth_is_reflectance_with_plausible_spectra(world):
    assert world.reflectance.shape == world.later.shape == (12, SMALL_M[0] * 2 // 5, SMALL_M[1] * 2 // 5)
    assert world.reflectance.dtype == np.float32
    assert 0 < world.reflectance.min() < world.reflectance.max() <= 1
    codes = {name: code for code, name in LANDCOVER.items()}
    mean = {name: world.reflectance[:, world.landcover == code].mean(1) for name, code in codes.items()}
    red, nir, swir = BANDS.index("B04"), BANDS.index("B08"), BANDS.index("B11")
    assert mean["forest"][nir] > 4 * mean["forest"][red]
    assert mean["water"][nir] < 0.05
    assert mean["bare soil"][swir] > mean["bare soil"][nir] > mean["bare soil"][red]
    assert {LANDCOVER[code] for code in np.unique(world.landcover)} == set(LANDCOVER.values())


def test_the_two_dates_differ_in_the_fields_and_hardly_in_the_woods(world):
    change = np.abs(world.later - world.reflectance)[BANDS.index("B08")]
    codes = {name: code for code, name in LANDCOVER.items()}
    assert change[world.landcover == codes["crop"]].mean() > 3 * change[world.landcover == codes["forest"]].mean()


def test_six_chips_cover_the_whole_world():
    """A chip is 1920 m with a step of 1680 m from (0, 0), rows counted southwards."""

    def touched(start_m, length_m):
        return [n for n in range(-4000, 4000) if n * 1680 < start_m + length_m and n * 1680 + 1920 > start_m]

    rows, columns = touched(-TOP_M, SIZE_M[0]), touched(LEFT_M, SIZE_M[1])
    assert (len(rows), len(columns)) == (2, 3)
    assert LEFT_M % 60 == TOP_M % 60 == 0
    assert LEFT_M % 1680 != 0
    assert TOP_M % 1680 != 0


@pytest.mark.parametrize("side", [{"size_m": (1200, 1830)}, {"size_m": (300, 1200)}])
def test_a_world_off_the_lattice_or_too_small_is_refused(side):
    with pytest.raises(ValueError, match="multiples of 60 m and at least 600 m"):
        generate_world(**side)


def test_a_written_world_can_be_asked_for_and_compared_with_its_truth(tmp_path, world):
    demo = write_demo_world(tmp_path / "demo", size_m=SMALL_M)
    assert demo.catalog.is_file()
    assert list(demo.truth) == [date for date, _ in DATES]
    assert demo.bbox == pytest.approx(world.bbox)
    assert demo.period[0] <= DATES[0][0] < DATES[1][0] <= demo.period[1]
    for date, path in demo.truth.items():
        with rasterio.open(path) as raster:
            assert raster.descriptions == BANDS
            assert raster.transform == world.transform
            assert np.abs(raster.read() / 10_000 - world.on(date)).max() <= 0.51e-4
    with rasterio.open(demo.landcover) as raster:
        assert np.array_equal(raster.read(1), world.landcover)
        assert {int(code): name for code, name in raster.tags(1).items() if code.isdigit()} == LANDCOVER
