"""Objects in a store: what is loaded for them, and what is said when a store cannot be used."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from fresh_python import loaded_by, run_python
from odd_names import ODD_NAMES

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage, place_of, store_failures

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


@pytest.mark.parametrize("form", ["path", "file://", "file://localhost"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_folder_of_any_name_is_a_store(tmp_path, name, form):
    url = f"{tmp_path}/{name}" if form == "path" else form + quote(f"{tmp_path}/{name}")
    storage = Storage(url).child("b ?" if form == "path" else "b%20%3F")
    storage.write("c/d#", b"1")
    assert not storage.create("c/d#", b"2")
    assert (tmp_path / name / "b ?" / "c" / "d#").read_bytes() == storage.read("c/d#") == b"1"
    assert storage.names("") == {"c/d#"}
    storage.delete("c/d#")
    assert not storage.exists("c/d#")
    assert storage.is_local


@pytest.mark.parametrize("key", ["nicht? #2/a", "a%20b", "ä ö", "a?b=1"])
def test_a_key_is_kept_letter_by_letter(key):
    assert place_of(f"memory://bucket/{key}")[1] == f"/bucket/{key}"


@pytest.mark.parametrize("url", ["C:\\cube.zarr", "file://server/cube.zarr", "s3:cube.zarr", "s3:///cube.zarr"])
def test_a_store_that_is_nowhere_is_refused_in_one_line(url):
    with pytest.raises(StoreError, match="cannot be opened as a store") as caught:
        Storage(url).exists("a")
    assert "\n" not in str(caught.value)
