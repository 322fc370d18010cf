"""A run that also says how sure it is."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

GROUP = "32632/0"


def test_a_run_with_samples_adds_their_spread_and_changes_nothing_else(difffusr, configure, finished_run, tmp_path):
    path = configure(model={"uncertainty_samples": 2})
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    there = xr.open_zarr(path.with_suffix(".zarr"), group=GROUP, mask_and_scale=False).load()
    without = xr.open_zarr(finished_run.with_suffix(".zarr"), group=GROUP, mask_and_scale=False).load()
    for name in ("reflectance", "quality", "source"):
        assert np.array_equal(there[name], without[name]), name
    assert "reflectance_std" not in without
    assert "reflectance_std" not in without.reflectance.attrs["ancillary_variables"]
    assert "reflectance_std" in there.reflectance.attrs["ancillary_variables"].split()
    std = there.reflectance_std
    assert std.dims == there.reflectance.dims
    assert std.encoding["chunks"] == there.reflectance.encoding["chunks"]
    assert std.encoding["shards"] == there.reflectance.encoding["shards"]

    cube = xr.open_zarr(path.with_suffix(".zarr"), group=GROUP).load()
    seen = cube.reflectance.notnull().values
    assert 0.1 < seen.mean() < 1
    assert np.array_equal(cube.reflectance_std.notnull().values, seen)
    assert (std.values[~seen] == 65535).all()
    assert 1e-4 < float(cube.reflectance_std.mean()) < 0.1
    assert cube.reflectance_std.attrs["cell_methods"] == "realization: standard_deviation"
    assert cube.reflectance_std.attrs["units"] == "1"

    again = difffusr("run", path)
    assert "0 computed" in again.out
    assert "0 written" in again.out

    # every shard of it is in the ledger: one that changes is found
    shards = sorted(p for p in (path.with_suffix(".zarr") / GROUP / "reflectance_std" / "c").rglob("*") if p.is_file())
    shards[0].write_bytes(shards[0].read_bytes()[:-1] + b"x")
    assert difffusr("verify", path, "--json", tmp_path / "report.json").code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert (len(report["damaged"]), report["missing"], report["incomplete"]) == (1, [], [])

    # the cube keeps the number of samples it began with
    for samples, other in ((0, "0"), (3, "3")):
        refused = difffusr("run", configure(model={"uncertainty_samples": samples}))
        assert refused.code == 2
        assert f"model.uncertainty_samples: found {other}, but zone 32632" in refused.err
        assert "has a reflectance_std of 2 samples; set the key to 2, or choose another store.url" in refused.err


def test_samples_into_a_cube_without_their_variable_are_refused_before_anything_is_computed(difffusr, finished):
    finished.write_text(finished.read_text().replace("sampler_steps: 2", "sampler_steps: 2\n  uncertainty_samples: 2"))
    before = {p: p.stat().st_mtime_ns for p in finished.with_suffix(".zarr").rglob("*") if p.is_file()}
    ended = difffusr("run", finished)
    assert ended.code == 2
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, ended.err
    assert "has no reflectance_std; set the key to 0, or choose another store.url" in errors[0]
    assert {p: p.stat().st_mtime_ns for p in finished.with_suffix(".zarr").rglob("*") if p.is_file()} == before
