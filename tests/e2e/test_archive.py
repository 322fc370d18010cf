"""The main job on real Sentinel-2 scenes: two dates without SCL, an offset under cloud, 63 km² of fields."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import xarray as xr


@pytest.mark.slow  # a minute; what it reads and where is tested by value in tests/pipeline/scenes and plan
def test_two_dates_without_scl_give_one_mosaic_with_the_right_radiometry(difffusr, configure, archive, tmp_path):
    path = configure(
        area={"tiles": ["43RCP"]},
        period={"start": "2020-06-01", "end": "2020-08-31"},
        source={"static_catalog": str(archive)},
        grid={"chip_px": 192, "overlap_px": 24},
        model={"sampler": "draft", "sampler_steps": None},
    )
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    assert ended.err.count("no SCL") == 1
    difffusr("verify", path, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    # not the seam ratio: one chip edge each way says more of the ground than of the mosaic
    assert not report["missing"] + report["damaged"] + report["incomplete"]
    assert max(band["residual"] for band in report["bands"]) < 0.005
    ds = xr.open_zarr(path.with_suffix(".zarr"), group="32643/0").isel(time=0)
    with rasterio.open(archive.parent / "items" / "S2B_43RCP_20200604_0_L2A" / "B04.tif") as file:
        other = file.read(1)
    mean = float(ds.reflectance.sel(band="B04").mean())
    assert mean == pytest.approx(other[other > 0].mean() / 1e4, rel=0.35)  # of one date or the other
    assert set(np.unique(ds.quality.values)) <= {0, 1, 2}


@pytest.mark.slow
def test_an_offset_under_full_cloud_is_removed_and_the_cloud_is_said(difffusr, configure, archive):
    path = configure(
        area={"tiles": ["33NZA"]},
        period={"start": "2022-07-01", "end": "2022-07-31"},
        source={"static_catalog": str(archive)},
        grid={"chip_px": 192, "overlap_px": 24},
    )
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    assert "no clear pixel" in ended.err
    assert "Traceback" not in ended.err
    ds = xr.open_zarr(path.with_suffix(".zarr"), group="32633/0").isel(time=0)
    quality = ds.quality.values
    assert (quality[quality > 0] == 3).mean() > 0.99
    with rasterio.open(archive.parent / "items" / "S2A_33NZA_20220706_0_L2A" / "B08.tif") as file:
        raw = file.read(1).astype(float)
    expected = (raw[raw > 0].mean() - 1000) / 1e4
    assert float(ds.reflectance.sel(band="B08").mean()) == pytest.approx(expected, rel=0.01)


def test_cloud_can_be_left_out(difffusr, configure, archive):
    ended = difffusr(
        "run",
        configure(
            area={"tiles": ["33NZA"]},
            period={"start": "2022-07-01", "end": "2022-07-31"},
            source={"static_catalog": str(archive)},
            scenes={"allow_cloudy": False},
        ),
    )
    assert ended.code == 1
    assert "scenes.allow_cloudy" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_sixty_three_square_kilometres_are_whole_seamless_and_true(difffusr, configure, archive, tmp_path):
    path = configure(
        area={"tiles": ["48QUE", "48QUD"]},
        period={"start": "2020-02-01", "end": "2020-02-29"},
        source={"static_catalog": str(archive)},
        grid={"chip_px": 192, "overlap_px": 24, "shard_px": 2048, "chunk_px": 256},
        model={"sampler_steps": 20},
    )
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    assert difffusr("verify", path, "--json", tmp_path / "r.json").code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    for band in report["bands"]:
        assert 0.9 <= band["seam_ratio"] <= 1.1, band
        assert band["residual"] <= (0.003 if band["band"] in ("B02", "B03", "B04", "B08") else 0.005), band
