"""What a source holds becomes scenes, in order; one that lacks a band is left out."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from beside import SHARED
from stac_items import ARCHIVE, config, needs_items

from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.search import find_scenes

pytestmark = needs_items


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A copy of the archive's JSON, to be damaged."""
    shutil.copytree(ARCHIVE, tmp_path / "archive", ignore=shutil.ignore_patterns("*.tif"))
    return tmp_path / "archive"


def test_a_static_catalogue_on_disk() -> None:
    scenes = find_scenes(config(static_catalog=str(ARCHIVE / "catalog.json")))
    assert [scene.id for scene in scenes] == [
        "S2B_48QUD_20200223_0_L2A",
        "S2B_48QUE_20200223_0_L2A",
        "S2B_43RCP_20200604_0_L2A",
        "S2B_43RCP_20200813_0_L2A",
        "S2A_33NZA_20220706_0_L2A",
    ]
    for scene in scenes:
        assert {asset.offset_dn for asset in scene.assets.values()} == {-1000 if scene.tile == "33NZA" else 0}
        assert all(Path(asset.href).is_file() for asset in scene.assets.values())
        assert (scene.scl is None) == (scene.tile == "43RCP")
    assert scenes[0].datetime == datetime(2020, 2, 23, 3, 38, tzinfo=UTC)
    assert find_scenes(config(static_catalog=str(ARCHIVE))) == scenes


def test_scenes_without_the_bands_are_no_scenes() -> None:
    source = {"static_catalog": str(SHARED / "data" / "overviews_120m" / "catalog.json")}
    with pytest.raises(CatalogError, match=r"4 items seen; .*: 4 without a band \(S2A_33TW.* no file of B01, B05"):
        find_scenes(config(**source))
    scenes = find_scenes(config(**source), bands=("B02", "B03", "B04", "B08"))
    assert [(scene.tile, scene.datetime.day) for scene in scenes] == [
        ("33TWM", 15),
        ("33TWL", 15),
        ("33TWM", 18),
        ("33TWL", 18),
    ]
    assert scenes[0].assets["B02"].gsd_m == 120


def test_a_scene_that_lacks_a_band_is_left_out_with_a_warning(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = next(archive.glob("items/S2B_48QUE*/*.json"))
    one = json.loads(file.read_text())
    del one["assets"]["rededge1"]
    file.write_text(json.dumps(one))
    with caplog.at_level(logging.WARNING, "difffusr.catalog"):
        scenes = find_scenes(config(static_catalog=str(archive)))
    assert {scene.tile for scene in scenes} == {"48QUD", "43RCP", "33NZA"}
    assert "left out: item S2B_48QUE_20200223_0_L2A: no file of B05" in caplog.text
