"""Objects in a store: what is loaded for them, and what is said when a store cannot be used."""

from __future__ import annotations

import pytest
from fresh_python import loaded_by, run_python

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage, store_failures

CLIENTS = ("aiohttp", "botocore", "s3fs", "gcsfs")


def test_no_client_is_loaded_before_a_url_asks_for_it():
    code = (
        "from difffusr.pipeline.storage.objects import Storage, store_failures\n"
        "Storage('/nowhere').exists('a'); store_failures()"
    )
    assert loaded_by(code, CLIENTS) == []


def test_the_clients_own_errors_are_failures_of_a_store():
    aiohttp, exceptions = pytest.importorskip("aiohttp"), pytest.importorskip("botocore.exceptions")
    for error in (FileNotFoundError(), aiohttp.ClientError("away"), exceptions.NoCredentialsError()):
        assert isinstance(error, store_failures())
    assert not isinstance(KeyError(), store_failures())


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/cube.zarr", "s3fs", "s3"),
        ("s3a://bucket/cube.zarr", "s3fs", "s3"),
        ("gs://bucket/cube.zarr", "gcsfs", "gcs"),
        ("simplecache::s3://bucket/cube.zarr", "s3fs", "s3"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(url, package, extra):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from difffusr.pipeline.ground.errors import StoreError\n"
        "from difffusr.pipeline.storage.objects import Storage\n"
        f"try:\n    Storage({url!r}).read('a')\nexcept StoreError as error:\n    print(error)"
    )
    assert run_python(code) == f"{url}: needs the package {package}: pip install 'difffusr[{extra}]'"


def test_an_unknown_protocol_is_named():
    with pytest.raises(StoreError, match="gopher://a: cannot be opened as a store"):
        Storage("gopher://a").exists("b")
