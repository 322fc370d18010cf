"""A world of which half is open water: those chips never reach the networks, and say so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from difffusr.pipeline.chips.staging import read_chip
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan.files import read_plan
from difffusr.pipeline.storage.places import staging_of

GROUP = "32632/0"


@pytest.fixture
def lake(world, tmp_path: Path) -> Path:
    """The world's catalogue, its northern two thirds water by every scene's classification."""
    folder = tmp_path / "lake"
    shutil.copytree(world.catalog.parent, folder)
    for path in folder.rglob("SCL.tif"):
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            classes = file.read(1)
            north = classes[: len(classes) * 2 // 3]
            north[north > 0] = 6
            file.write(classes, 1)
    return folder / world.catalog.name


def test_chips_of_water_alone_are_enlarged_flagged_and_counted(difffusr, configure, lake, tmp_path):
    common = {"source": {"static_catalog": str(lake)}, "store": {"url": "skipped.zarr", "keep_chips": True}}
    path = configure("skipped", skip={"water": True}, **common)
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    staging = staging_of(load_config(path))
    chips = json.loads(staging.read("report.json"))["chips"]
    assert 0 < chips["skipped"] < chips["computed"]
    plan = read_plan(staging)
    flags = [np.unique(read_chip(staging, name).quality) for name in plan.chips.object_names()]
    skipped = [Quality.INTERPOLATED in found for found in flags]
    assert sum(skipped) == chips["skipped"]
    for found, was in zip(flags, skipped, strict=True):
        assert not was or set(found.tolist()) <= {Quality.NO_DATA, Quality.INTERPOLATED}
    with xr.open_zarr(path.with_suffix(".zarr"), group=GROUP, mask_and_scale=False) as cube:
        assert cube.quality.attrs["flag_meanings"].split()[Quality.INTERPOLATED] == "interpolated"
        quality = cube.quality.values
        assert 0.1 < (quality[quality > 0] == Quality.INTERPOLATED).mean() < 0.9
        assert (quality == Quality.CLEAR).any()
        assert (cube.reflectance.values[:, :, quality[0] == Quality.INTERPOLATED] > 0).all()
    difffusr("verify", path, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["missing"] + report["damaged"] + report["incomplete"]
    # what is interpolated does not give the scene back; the residual is of what is not
    assert all(band["residual"] < 0.003 for band in report["bands"])
    again = difffusr("run", path)
    assert "0 computed" in again.out
