"""The whole job on an object store: a real S3 server on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import xarray as xr
from moto.server import ThreadedMotoServer

SECRET = "secret-that-nobody-may-see"


@pytest.fixture
def bucket() -> Iterator[dict]:
    """Storage options of a bucket called `cubes`."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="me", aws_secret_access_key=SECRET, region_name="us-east-1"
    )
    client.create_bucket(Bucket="cubes")
    yield {"key": "me", "secret": SECRET, "client_kwargs": {"endpoint_url": endpoint}}
    server.stop()


def test_a_cube_on_s3_is_the_cube_on_disk(difffusr, configure, finished_run, bucket):
    path = configure(store={"url": "s3://cubes/mosaic.zarr", "storage_options": bucket})
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    assert SECRET not in ended.out + ended.err
    group = "32632/0"
    there = xr.open_zarr("s3://cubes/mosaic.zarr", group=group, storage_options=bucket).load()
    here = xr.open_zarr(finished_run.with_suffix(".zarr"), group=group).load()
    assert there.equals(here)
    told = difffusr("status", path)
    assert "published" in told.out
    again = difffusr("run", path)
    assert "0 computed" in again.out
    assert "0 written" in again.out


def test_a_bucket_that_is_not_there_is_named(difffusr, configure, bucket):
    ended = difffusr("run", configure(store={"url": "s3://nowhere/mosaic.zarr", "storage_options": bucket}))
    assert ended.code == 1
    assert "s3://nowhere/mosaic.zarr" in ended.err
    assert "Traceback" not in ended.err
    assert SECRET not in ended.err
