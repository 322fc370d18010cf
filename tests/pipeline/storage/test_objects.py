"""Objects in a store: what is loaded for them, and what is said when a store cannot be used."""

from __future__ import annotations

import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from fresh_python import loaded_by, run_python
from odd_names import ODD_NAMES

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage, place_of, store_failures

CLIENTS = ("aiohttp", "botocore", "s3fs", "gcsfs", "icechunk")


def test_no_client_is_loaded_before_a_url_asks_for_it():
    code = (
        "from difffusr.pipeline.storage.objects import Storage, store_failures\n"
        "Storage('/nowhere').exists('a'); store_failures()"
    )
    assert loaded_by(code, CLIENTS) == []


def test_the_clients_own_errors_are_failures_of_a_store():
    aiohttp, exceptions = pytest.importorskip("aiohttp"), pytest.importorskip("botocore.exceptions")
    icechunk = pytest.importorskip("icechunk")
    of_icechunk = (icechunk.IcechunkError("cut"), icechunk.ConflictError("a", "b"))
    for error in (FileNotFoundError(), aiohttp.ClientError("away"), exceptions.NoCredentialsError(), *of_icechunk):
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


@pytest.fixture(params=["disk", "s3", "memory"])
def anywhere(request: pytest.FixtureRequest, tmp_path) -> Storage:
    if request.param == "s3":
        return Storage(f"s3://{request.getfixturevalue('bucket')}/x", request.getfixturevalue("s3_options"))
    return Storage(f"memory://{tmp_path}" if request.param == "memory" else str(tmp_path))


def test_an_exchange_replaces_the_version_that_was_seen_and_no_other(anywhere):
    assert anywhere.tag("a/b") == ""
    assert anywhere.exchange("a/b", b"1", "")
    assert not anywhere.exchange("a/b", b"2", "")
    seen = anywhere.tag("a/b")
    assert seen
    assert anywhere.exchange("a/b", b"33", seen)
    assert not anywhere.exchange("a/b", b"4", seen)
    assert anywhere.exchange("a/b", b"33", seen)  # the answer was lost, and it is asked for again
    assert anywhere.read("a/b") == b"33"
    now = anywhere.tag("a/b")
    anywhere.delete("a/b")
    assert not anywhere.exchange("a/b", b"5", now)
    assert not anywhere.exists("a/b")


def test_of_many_exchanges_of_one_version_one_succeeds(tmp_path):
    storage = Storage(str(tmp_path))
    storage.write("a", b"before")
    tag = storage.tag("a")
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: storage.exchange("a", b"%d" % n, tag), range(8)))
    assert sum(done) == 1
    assert storage.read("a") == b"%d" % done.index(True)
    assert storage.names("") == {"a"}
    assert len(list(tmp_path.iterdir())) == 1


def test_who_is_stopped_amid_an_exchange_is_named_to_whoever_waits(tmp_path, monkeypatch):
    monkeypatch.setattr("difffusr.pipeline.storage.versions._PATIENCE_S", 0.05)
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="a process is stopped in the middle of writing") as caught:
        Storage(str(tmp_path)).exchange("a", b"1", "")
    assert "\n" not in str(caught.value)
    os.close(handle)
    assert Storage(str(tmp_path)).exchange("a", b"1", "")


def test_the_store_says_when_an_object_was_written(anywhere):
    anywhere.write("a", b"1")
    written = anywhere.modified("a")
    assert written is not None
    assert abs(written - time.time()) < 60
