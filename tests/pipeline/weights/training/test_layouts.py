"""Images are found and split as their data set lays them out."""

from __future__ import annotations

import pytest
from tiny_training import write_image

from difffusr.pipeline.weights.training.imagery import resample
from difffusr.pipeline.weights.training.reading import find_all, read_image, size_of
from difffusr.pipeline.weights.training.settings import ImageSource

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_sen2naip_is_split_by_roi(tmp_path):
    for roi in ("ROI_0000", "ROI_0001"):
        write_image(tmp_path / "cross-sensor" / roi / "hr.tif", bands=4)
        write_image(tmp_path / "cross-sensor" / roi / "lr.tif", bands=4, size=40, dtype="uint16", high=4000)
    for part, roi in (("synthetic_1", "ROI_0007"), ("synthetic_2", "ROI_0009")):
        for when in ("early", "late"):
            write_image(tmp_path / part / roi / when / f"{when}_tile.tif", bands=4)
    source = ImageSource(path=".", layout="sen2naip", held_out_every=2)
    training, held_out = find_all([source], tmp_path)
    assert {file.place for file in training} == {"ROI_0000", "ROI_0007"}
    assert [file.path.name for file in held_out] == ["hr.tif", "early_tile.tif", "late_tile.tif"]
    image = read_image(training[0])
    assert (image.gsd_m, image.display, image.pixels.shape) == (2.5, True, (3, 160, 160))


def test_worldstrat_is_split_by_site(tmp_path):
    for aoi in ("Amnesty POI-1-1-1", "Amnesty POI-1-1-2", "Landcover-773616"):
        write_image(tmp_path / "hr_dataset" / "12bit" / aoi / f"{aoi}_ps.tiff", 4, dtype="uint16", high=5000)
        write_image(tmp_path / "hr_dataset" / "12bit" / aoi / f"{aoi}_rgb.png", 3)
    write_image(tmp_path / "hr_dataset" / "UNHCR-GHAs003590" / "UNHCR-GHAs003590_rgb.png", 3)
    source = ImageSource(path="hr_dataset", layout="worldstrat", held_out=("Amnesty*",), resample="target")
    training, held_out = find_all([source], tmp_path)
    assert [file.path.name for file in training] == ["Landcover-773616_ps.tiff", "UNHCR-GHAs003590_rgb.png"]
    assert {file.place for file in held_out} == {"Amnesty POI-1"}
    sharp, picture = (read_image(file) for file in training)
    assert not sharp.display
    assert 0.3 < sharp.pixels.max() < 0.51  # DN / 10⁴
    assert picture.display
    assert resample(sharp, 2.5).pixels.shape == (3, 96, 96), "160 px at 1.5 m are 96 px at 2.5 m"


def test_gsd_comes_from_the_index_where_it_states_a_number(tmp_path):
    for name in ("a.tif", "b.tif"):
        write_image(tmp_path / "hr" / name)
    (tmp_path / "hr" / "index.csv").write_text('file,gsd_m\na.tif,1.0\nb.tif,"2.0-2.5 (estimated)"\n')
    source = ImageSource(path="hr", gsd_m=2.25, index="hr/index.csv")
    assert [file.gsd_m for file in find_all([source], tmp_path)[0]] == [1.0, 2.25]


@pytest.mark.parametrize(("rows", "height"), [((0, 1), 160), ((0, 0.6), 96), ((0.65, 1), 56), ((0.25, 0.75), 80)])
def test_of_an_image_a_part_may_be_read(tmp_path, rows, height):
    write_image(tmp_path / "hr" / "city.tif")
    whole, part = (find_all([ImageSource(path="hr", gsd_m=2.0, rows=of)], tmp_path)[0][0] for of in ((0.0, 1.0), rows))
    assert size_of(part) == (height, 160)
    first = round(rows[0] * 160)
    assert (read_image(part).pixels == read_image(whole).pixels[:, first : first + height]).all()
