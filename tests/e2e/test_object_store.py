"""The whole job on an object store: a real S3 server on loopback."""

from __future__ import annotations

import xarray as xr


def test_a_cube_on_s3_is_the_cube_on_disk(difffusr, configure, finished_run, bucket, s3_options):
    path = configure(store={"url": f"s3://{bucket}/mosaic.zarr", "storage_options": s3_options})
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    assert s3_options["secret"] not in ended.out + ended.err
    group = "32632/0"
    there = xr.open_zarr(f"s3://{bucket}/mosaic.zarr", group=group, storage_options=s3_options).load()
    here = xr.open_zarr(finished_run.with_suffix(".zarr"), group=group).load()
    assert there.equals(here)
    told = difffusr("status", path)
    assert "published" in told.out
    again = difffusr("run", path)
    assert "0 computed" in again.out
    assert "0 written" in again.out


def test_a_bucket_that_is_not_there_is_named(difffusr, configure, s3_options):
    ended = difffusr("run", configure(store={"url": "s3://nowhere/mosaic.zarr", "storage_options": s3_options}))
    assert ended.code == 1
    assert "s3://nowhere/mosaic.zarr" in ended.err
    assert "Traceback" not in ended.err
    assert s3_options["secret"] not in ended.err
