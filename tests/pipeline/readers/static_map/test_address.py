"""Where a page looks for its cube."""

from __future__ import annotations

import pytest

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.static_map.address import cube_address, origin_of
from difffusr.pipeline.storage.objects import Storage

MINIO = {"client_kwargs": {"endpoint_url": "https://minio.example:9000/"}}


@pytest.mark.parametrize(
    ("cube", "folder", "address"),
    [
        ("/data/cube.zarr", "/data/map", "../cube.zarr"),
        ("/data/cube.zarr", "/data", "./cube.zarr"),
        ("/data/cube.zarr", "/data/a/b/c", "../../../cube.zarr"),
        ("/data/2023/cube.zarr", "/maps", "../data/2023/cube.zarr"),
        ("/data/cube.zarr", "/data/cube.zarr.map", "../cube.zarr"),
        ("/data/Käse 50%#1?.zarr", "/data/map", "../K%C3%A4se%2050%25%231%3F.zarr"),
        ("/data/a:b.zarr", "/data", "./a%3Ab.zarr"),
        ("file:///data/cube.zarr", "/data/map", "../cube.zarr"),
        ("memory://bucket/cube.zarr", "memory://bucket/map", "../cube.zarr"),
        ("https://maps.example.org/cube.zarr", "/data/map", "https://maps.example.org/cube.zarr"),
        ("http://localhost:8000/cube.zarr/", "/data/map", "http://localhost:8000/cube.zarr"),
    ],
)
def test_a_page_finds_a_cube_beside_it_or_on_the_web(cube, folder, address):
    assert cube_address(Storage(cube), Storage(folder)) == address


@pytest.mark.parametrize(
    ("cube", "options", "folder", "address"),
    [
        ("s3://bucket/a/cube.zarr", {}, "s3://bucket/map", "../a/cube.zarr"),
        ("s3a://bucket/cube.zarr", {}, "s3://bucket/map", "../cube.zarr"),
        ("s3://bucket/a b/cube.zarr", {}, "/data/map", "https://bucket.s3.amazonaws.com/a%20b/cube.zarr"),
        ("s3://bucket/cube.zarr", {}, "s3://pages/map", "https://bucket.s3.amazonaws.com/cube.zarr"),
        ("s3://my.bucket/cube.zarr", {}, "/data/map", "https://s3.amazonaws.com/my.bucket/cube.zarr"),
        ("s3://bucket/cube.zarr", MINIO, "/data/map", "https://minio.example:9000/bucket/cube.zarr"),
    ],
)
def test_a_bucket_has_an_address_on_the_web(cube, options, folder, address):
    assert cube_address(Storage(cube, options), Storage(folder)) == address


@pytest.mark.parametrize(
    "given",
    ["https://maps.example.org/cube.zarr", "http://localhost:8000/a/b.zarr/", "../other/cube.zarr", "/cube.zarr"],
)
def test_an_address_that_is_given_goes_before(given):
    assert cube_address(Storage("/data/cube.zarr"), Storage("/data/map"), given) == given.rstrip("/")


@pytest.mark.parametrize(
    ("cube", "folder", "given", "said"),
    [
        ("icechunk+/data/cube", "/data/map", None, "Icechunk"),
        ("icechunk+s3://bucket/cube", "/data/map", "https://a.example/cube", "Icechunk"),
        ("/data/cube.zarr", "/data/cube.zarr", None, "lies in the cube"),
        ("/data/cube.zarr", "/data/cube.zarr/map", None, "lies in the cube"),
        ("/data/cube.zarr", "/data/x/../cube.zarr/map", "https://a.example/cube", "lies in the cube"),
        ("/data/cube.zarr", "memory://pages/map", None, "--cube-url"),
        ("memory://bucket/cube.zarr", "/data/map", None, "--cube-url"),
        ("/data/cube.zarr", "/data/map", "s3://bucket/cube.zarr", "expected https://"),
        ("/data/cube.zarr", "/data/map", "https://", "expected https://"),
        ("/data/cube.zarr", "/data/map", " ", "expected https://"),
        ("/data/cube.zarr", "/data/map", "javascript:alert(1)", "expected https://"),
        ("/data/cube.zarr", "/data/map", "https://a.example/c u b e", "expected https://"),
        ("/data/cube.zarr", "/data/map", "https://me:word@a.example/cube.zarr", "login"),
        ("/data/cube.zarr", "/data/map", "https://a.example/cube.zarr?sig=word", "login, a query"),
        ("https://a.example/cube.zarr?sig=word", "/data/map", None, "login, a query"),
    ],
)
def test_what_no_page_can_reach_is_said_without_secrets(cube, folder, given, said):
    with pytest.raises(ConfigError, match=said) as raised:
        cube_address(Storage(cube), Storage(folder), given)
    assert "word" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_only_addresses_of_the_web_have_an_origin():
    assert origin_of("https://a.example:8443/b/cube.zarr") == "https://a.example:8443"
    assert origin_of("../cube.zarr") is None
    assert origin_of("/cube.zarr") is None
