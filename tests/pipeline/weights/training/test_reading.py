"""Images that cannot be used are named."""

from __future__ import annotations

import pytest
from tiny_training import write_image

from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.weights.training.reading import find_all
from difffusr.pipeline.weights.training.settings import ImageSource

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.mark.parametrize(
    ("make", "source", "kind", "said"),
    [
        ("nothing", {}, ConfigError, "no such folder"),
        ("text", {}, ConfigError, "no images there"),
        ("damaged", {}, ReadError, "a.tif: cannot be read"),
        ("grey", {}, ConfigError, r"data\[0\]\.rgb: .*1 band"),
        ("image", {"held_out": ("*",)}, ConfigError, "every image is held out"),
        ("image", {"index": "hr/index.csv"}, ConfigError, "index"),
        ("image", {"layout": "sen2naip"}, ConfigError, "ROI_"),
        ("image", {"layout": "worldstrat"}, ConfigError, "_ps.tiff"),
    ],
)
def test_unusable_data_are_named(tmp_path, make, source, kind, said):
    if make == "text":
        (tmp_path / "hr").mkdir()
        (tmp_path / "hr" / "read.me").write_text("no image")
    elif make == "damaged":
        (tmp_path / "hr").mkdir()
        (tmp_path / "hr" / "a.tif").write_bytes(b"II*\0 no tiff at all")
    elif make != "nothing":
        write_image(tmp_path / "hr" / "a.tif", bands=1 if make == "grey" else 3)
    with pytest.raises(kind, match=said):
        find_all([ImageSource(path="hr", gsd_m=2.5, **source)], tmp_path)
