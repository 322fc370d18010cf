"""What a reader on an object store asks for: the fewer requests, the sooner it begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import xarray as xr
import zarr
from file_bucket import FileBucket, serve
from small_cubes import GROUP, published

from difffusr.pipeline.storage.objects import Storage


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileBucket]:
    """A cube of two months, served."""
    folder = tmp_path_factory.mktemp("served")
    storage, staging = Storage(str(folder / "maps" / "cube.zarr")), Storage(str(folder / "staging"))
    published(storage, staging, 1, 7)
    published(storage, staging, 2, 8)
    with serve(folder) as running:
        yield running


@pytest.fixture
def cube(bucket: FileBucket) -> zarr.abc.store.Store:
    """The cube through obstore."""
    store = pytest.importorskip("obstore.store", reason="obstore is not installed")
    return zarr.storage.ObjectStore(store.S3Store("maps", prefix="cube.zarr", **bucket.obstore_options), read_only=True)


def test_one_document_describes_the_whole_cube(bucket, cube):
    bucket.counted()
    opened = xr.open_zarr(cube, group=GROUP, chunks=None, zarr_format=3)
    asked = bucket.counted().requests
    documents = [request for request in asked if request.endswith("zarr.json")]
    assert documents == ["GET /maps/cube.zarr/zarr.json"]
    chunks = [request.split(f"/{GROUP}/")[1] for request in asked if request not in documents]
    assert {chunk.split("/")[0] for chunk in chunks} == {"time", "time_bnds", "x", "y", "band"}
    assert opened.sizes["time"] == 2


def test_periods_make_no_more_requests(tmp_path, bucket, cube):
    """Nor scenes: a cube of one month takes as many as one of two."""
    bucket.counted()
    xr.open_zarr(cube, group=GROUP, chunks=None, zarr_format=3)
    two = len(bucket.counted().requests)
    published(Storage(str(tmp_path / "maps" / "cube.zarr")), Storage(str(tmp_path / "staging")), 1, 7)
    with serve(tmp_path) as other:
        store = pytest.importorskip("obstore.store", reason="obstore is not installed")
        one = zarr.storage.ObjectStore(store.S3Store("maps", prefix="cube.zarr", **other.obstore_options))
        other.counted()
        xr.open_zarr(one, group=GROUP, chunks=None, zarr_format=3)
        assert len(other.counted().requests) == two == 9


def test_s3fs_that_is_told_to_asks_for_no_sizes(bucket):
    """Left alone, some versions ask for the size of each object before they read it."""
    options = dict(bucket.s3fs_options) | {"max_concurrency": 1}
    bucket.counted()
    xr.open_zarr("s3://maps/cube.zarr", group=GROUP, chunks=None, zarr_format=3, storage_options=options)
    assert {request.split()[0] for request in bucket.counted().requests} == {"GET"}


def test_a_window_is_the_index_of_its_shard_and_its_chunks(bucket, cube):
    array = zarr.open_array(cube, path=f"{GROUP}/reflectance", mode="r", zarr_format=3)
    bucket.counted()
    one = array[1, :, 32:64, 64:96]
    asked = bucket.counted()
    assert asked.requests == [f"GET /maps/cube.zarr/{GROUP}/reflectance/c/1/0/0/1"] * 2
    assert (one == 8).all()
    assert asked.sent < one.nbytes


def test_the_server_knows_what_is_not_there(bucket, cube):
    with pytest.raises(FileNotFoundError):
        zarr.open_array(cube, path="nowhere", mode="r", zarr_format=3)
