"""A run whose chips are composites of all their looks."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from difffusr.pipeline.ground.pixels import Quality

BY_DRAFT = {"sampler": "draft", "sampler_steps": None}


def test_a_composite_counts_its_looks_at_every_level_and_is_verified_and_kept(difffusr, configure, tmp_path):
    scenes = {"composite": "geomedian", "looks": 4}
    path = configure(model=BY_DRAFT, scenes=scenes, failures={"on_failed": "refuse"})
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    url = path.with_suffix(".zarr")
    levels = [
        xr.open_zarr(url, group=f"32632/{number}", mask_and_scale=False).isel(time=0).load() for number in (0, 1, 2)
    ]
    for level in levels:
        assert level.looks.dtype == np.uint8
        assert level.looks.attrs["standard_name"] == "number_of_observations"
        assert "looks" in level.reflectance.attrs["ancillary_variables"].split()
        quality, looks = level.quality.values, level.looks.values
        assert {1, 2} <= set(np.unique(looks).tolist())
        assert not looks[quality == Quality.NO_DATA].any()
        assert not (quality == Quality.FILLED).any()
    full = levels[0]
    assert np.array_equal(full.looks.values > 0, full.quality.values == Quality.CLEAR)
    # the cloud of one date is clear on the other: nothing that any date shows is cloud
    assert (full.quality.values == Quality.CLEAR).sum() > 0.98 * (full.quality.values > 0).sum()
    blue = full.reflectance.sel(band="B02").values
    assert (blue > 3000).sum() < 0.001 * (blue > 0).sum()  # bright roofs

    again = difffusr("run", path)
    assert "0 computed" in again.out
    assert "0 written" in again.out

    verified = difffusr("verify", path, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["missing"] + report["damaged"] + report["incomplete"], verified.out
    residuals = [band["residual"] for band in report["bands"]]
    assert all(residual is not None and residual < 0.003 for residual in residuals), residuals

    # every shard of it is in the ledger: one that changes is found
    shards = sorted(p for p in (url / "32632" / "0" / "looks" / "c").rglob("*") if p.is_file())
    shards[0].write_bytes(shards[0].read_bytes()[:-1] + b"x")
    assert difffusr("verify", path, "--json", tmp_path / "report.json").code == 1
    assert len(json.loads((tmp_path / "report.json").read_text())["damaged"]) == 1

    # the cube keeps the composite that it began with
    for other in ("none", "medoid"):
        refused = difffusr("run", configure(model=BY_DRAFT, scenes={"composite": other}))
        assert refused.code == 2
        assert f"scenes.composite: found '{other}', but zone 32632" in refused.err
        assert "set the key to 'geomedian', or choose another store.url" in refused.err
