"""What a path or URL points at, how it may be shown, and what is said of an error in one line."""

from __future__ import annotations

from typing import Any

import pytest

from difffusr.pipeline.ground.urls import (
    bare_href,
    bucket_of,
    first_line,
    host_of,
    is_remote,
    is_url,
    located,
    one_line,
    path_in,
    shown_url,
    without_secrets,
)

SIGNED = "https://user:pw@host:8080/a/b.tif?sig=SECRET&x=1#part"


@pytest.mark.parametrize(
    ("href", "url", "remote"),
    [
        ("/data/a.tif", False, False),
        ("data/a.tif", False, False),
        ("C:/a.tif", False, False),
        ("file:///data/a.tif", True, False),
        ("http://localhost:8000/a", True, False),
        ("http://127.0.0.1/a", True, False),
        ("http://[::1]:80/a", True, False),
        ("http://10.0.0.1/a", True, True),
        ("https://host/a", True, True),
        ("s3://bucket/a", True, True),
        ("icechunk+s3://bucket/a", True, True),
        ("icechunk+/data/a", False, False),
        ("FILE:///data/a.tif", True, False),
        ("HTTP://LOCALHOST/a", True, False),
        ("S3://bucket/a", True, True),
        ("simplecache::s3://bucket/a", True, True),
        ("/data/a://b.tif", False, False),
        ("/data/läuft nicht? #2/s3://b.tif", False, False),
        ("http://[broken/a", True, True),
    ],
)
def test_a_url_is_told_from_a_path_and_another_machine_from_this_one(href: str, url: bool, remote: bool) -> None:
    assert (is_url(href), is_remote(href)) == (url, remote)


HERE = "/data/läuft nicht? #2/"


@pytest.mark.parametrize(
    ("text", "base", "found"),
    [
        # Paths, letter by letter.
        ("/data/a.tif", HERE, "/data/a.tif"),
        ("/läuft nicht? #2/a%20b 100%.tif", HERE, "/läuft nicht? #2/a%20b 100%.tif"),
        ("/data//a/./b/../c.tif/", HERE, "/data/a/c.tif"),
        ("//data/a.tif", HERE, "/data/a.tif"),
        ("/back\\slash/a.tif", HERE, "/back\\slash/a.tif"),
        ("/data/a:b.tif", HERE, "/data/a:b.tif"),
        ("/data/s3://b.tif", HERE, "/data/s3:/b.tif"),
        # Relative paths: of a folder, of a document.
        ("a.tif", HERE, "/data/läuft nicht? #2/a.tif"),
        ("./a #1?.tif", HERE, "/data/läuft nicht? #2/a #1?.tif"),
        ("a%20b.tif", HERE, "/data/läuft nicht? #2/a%20b.tif"),
        ("../a.tif", HERE, "/data/a.tif"),
        ("../../../a.tif", HERE, "/a.tif"),
        (".", HERE, "/data/läuft nicht? #2"),
        ("#2/a.tif", "/data/item.json", "/data/#2/a.tif"),
        ("?/a.tif", "/data/item.json", "/data/?/a.tif"),
        ("~/a.tif", "/data/item.json", "/data/~/a.tif"),
        ("./a:b.tif", "/data/item.json", "/data/a:b.tif"),
        ("2024-06:a.tif", "/data/item.json", "/data/2024-06:a.tif"),
        # file:// URLs.
        ("file:///data/a.tif", HERE, "/data/a.tif"),
        ("FILE:///data/a.tif", HERE, "/data/a.tif"),
        ("file:/data/a.tif", HERE, "/data/a.tif"),
        ("file://localhost/data/a.tif", HERE, "/data/a.tif"),
        ("file:////data/a.tif", HERE, "/data/a.tif"),
        ("file:///data/l%C3%A4uft%20nicht%3F%20%232/a.tif", HERE, "/data/läuft nicht? #2/a.tif"),
        ("file:///data/läuft nicht? #2/a.tif", HERE, "/data/läuft nicht? #2/a.tif"),
        ("file:///data/100%/a.tif", HERE, "/data/100%/a.tif"),
        ("file:///data/a", "https://host/b", "/data/a"),
        # URLs of the web.
        ("https://host/a/b.tif?sig=A%2Fb&x=1", HERE, "https://host/a/b.tif?sig=A%2Fb&x=1"),
        ("HTTPS://host/A", HERE, "https://host/A"),
        ("http://user:pw@[::1]:8080/a", HERE, "http://user:pw@[::1]:8080/a"),
        ("https://host", HERE, "https://host"),
        ("https://host/läuft nicht/100%/a.tif", HERE, "https://host/l%C3%A4uft%20nicht/100%25/a.tif"),
        ("https://host/a%20b/%C3%A4.tif", HERE, "https://host/a%20b/%C3%A4.tif"),
        ("a.tif", "https://host/x/item.json", "https://host/x/a.tif"),
        ("a.tif", "https://host/x/", "https://host/x/a.tif"),
        ("a.tif", "https://host", "https://host/a.tif"),
        ("a.tif", "https://host/x/item.json?token=secret#y", "https://host/x/a.tif"),
        ("../a.tif?sig=1", "https://host/x/y/item.json", "https://host/x/a.tif?sig=1"),
        ("../../../a.tif", "https://host/x/item.json", "https://host/a.tif"),
        ("/d/a/B02.tif", "https://host.example/x/item.json", "https://host.example/d/a/B02.tif"),
        ("//other/a.tif", "https://host/x/item.json", "https://other/a.tif"),
        ("?token=2", "https://host/search?token=1", "https://host/search?token=2"),
        ("ä b #1.tif", "https://host/x/item.json", "https://host/x/%C3%A4%20b%20%231.tif"),
        ("a\\b.tif", "https://host/x/item.json", "https://host/x/a/b.tif"),
        # Keys in buckets, letter by letter.
        ("s3://bucket/läuft nicht? #2/a%20b.tif", HERE, "s3://bucket/läuft nicht? #2/a%20b.tif"),
        ("S3://bucket/a", HERE, "s3://bucket/a"),
        ("s3://bucket", HERE, "s3://bucket"),
        ("B 02 #1.tif", "s3://bucket/nicht? #2/item.json", "s3://bucket/nicht? #2/B 02 #1.tif"),
        ("../a.tif", "s3://bucket/x/y/item.json", "s3://bucket/x/a.tif"),
        ("../../../a.tif", "s3://bucket/x/item.json", "s3://bucket/a.tif"),
        ("/a.tif", "s3://bucket/x/item.json", "s3://bucket/a.tif"),
        ("a.tif", "abfs://container@account/x/item.json", "abfs://container@account/x/a.tif"),
        ("simplecache::s3://bucket/a", HERE, "simplecache::s3://bucket/a"),
        ("memory://a", HERE, "memory://a"),
    ],
)
def test_a_text_points_to_one_place(text: str, base: str, found: str) -> None:
    assert located(text, base) == found
    assert located(found, "/elsewhere/") == found
    assert is_url(found) == (not found.startswith("/"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("C:\\data\\a.tif", "a path of Windows"),
        ("c:/data/a.tif", "a path of Windows"),
        ("C:", "a path of Windows"),
        ("\\\\server\\share\\a.tif", "a path of Windows"),
        ("file:///C:/data/a.tif", "a path of Windows"),
        ("file:///c|/data/a.tif", "a path of Windows"),
        ("file://C:/data/a.tif", "a path of Windows"),
        ("file://server/a.tif", "another machine's file"),
        ("file://data", "another machine's file"),
        ("file:a.tif", "no absolute path"),
        ("file:", "no absolute path"),
        ("file://localhost", "no absolute path"),
        ("file:///data/a%00b", "a control character"),
        ("data\\a.tif", "has backslashes"),
        ("..\\a.tif", "has backslashes"),
        ("a\0b", "a control character"),
        ("a\nb", "a control character"),
        ("", "is empty"),
        ("https:/host/a", "lacks //"),
        ("http:a.tif", "lacks //"),
        ("s3:bucket/a", "lacks //"),
        ("GTIFF_DIR:1:/etc/passwd", "lacks //"),
        ("data:image/png;base64,AAAA", "lacks //"),
        ("https://", "no valid host"),
        ("https:///a", "no valid host"),
        ("http://host:port/a", "no valid host"),
        ("http://host:70000/a", "no valid host"),
        ("http://[::1/a", "no valid host"),
        ("http://ho st/a", "no valid host"),
        ("s3://", "no bucket"),
        ("s3:///key", "no bucket"),
    ],
)
def test_a_text_that_points_nowhere_is_refused_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        located(text, HERE)
    assert any(mark in str(caught.value) for mark in ("; ", "… for"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("/nicht? #2/a.tif", "/nicht? #2/a.tif"),
        ("https://host/a/b.tif?x=1#y", "/a/b.tif"),
        ("s3://bucket/nicht? #2/a.tif", "/nicht? #2/a.tif"),
        ("s3://bucket/a.tif?versionId=1", "/a.tif"),
        ("https://host", ""),
    ],
)
def test_the_path_in_a_url_ends_before_its_query(href: str, path: str) -> None:
    assert path_in(href) == path


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:pw@host:8080/a?x=1", "host:8080"),
        ("s3://bucket/a", "bucket"),
        ("http://[::1]:80/", "[::1]:80"),
        ("/data/a", "/data/a"),
    ],
)
def test_a_host_is_named_without_login(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("href", "bucket"),
    [
        ("s3://sentinel-cogs/a/b.tif", "sentinel-cogs"),
        ("gs://mine/b.tif", "mine"),
        ("gcs://mine/b.tif", "mine"),
        ("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif", "sentinel-cogs"),
        ("https://my.dotted.s3.amazonaws.com/a.tif", "my.dotted"),
        ("https://s3.eu-central-1.amazonaws.com/mine/a.tif", "mine"),
        ("https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/a.tif?sig=x", "sentinel2l2a01"),
        ("https://host/sentinel-cogs/a.tif", None),
        ("/vsis3/sentinel-cogs/a.tif", None),
        ("/data/sentinel-cogs/a.tif", None),
    ],
)
def test_the_bucket_is_found_in_whatever_form_a_url_has(href: str, bucket: str | None) -> None:
    assert bucket_of(href) == bucket


@pytest.mark.parametrize(
    ("url", "bare", "shown"),
    [
        ("/data/a?b#c.tif", "/data/a?b#c.tif", "/data/a?b#c.tif"),
        ("", "", ""),
        (SIGNED, "https://host:8080/a/b.tif", "https://host:8080/a/b.tif"),
        ("http://token@host/a", "http://host/a", "http://host/a"),
        ("s3://key:SECRET@bucket/a", "s3://bucket/a", "s3://bucket/a"),
        # A container before the @ is part of the place, no login.
        ("s3://me@bucket/a?x=1", "s3://bucket/a", "s3://me@bucket/a"),
        ("abfs://container@account/a", "abfs://account/a", "abfs://container@account/a"),
        ("file:///data/a.tif", "file:///data/a.tif", "file:///data/a.tif"),
        ("icechunk+s3://bucket/a", "icechunk+s3://bucket/a", "icechunk+s3://bucket/a"),
        # In a bucket, # and ? belong to names.
        ("s3://bucket/nicht? #2/a", "s3://bucket/nicht? #2/a", "s3://bucket/nicht? #2/a"),
        ("http://u:SECRET@[broken/a?sig=SECRET", "http://broken/a", "http://broken/a"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, bare: str, shown: str) -> None:
    assert bare_href(url) == bare
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (SIGNED, "https://host:8080/a/b.tif"),
        ({"a": {"b": SIGNED}, "c": 1}, {"a": {"b": "https://host:8080/a/b.tif"}, "c": 1}),
        ("what? nothing=1", "what? nothing=1"),
        ([1, None], [1, None]),
        (None, None),
    ],
)
def test_a_configuration_is_kept_without_its_secrets(value: Any, shown: Any) -> None:
    assert without_secrets(value) == shown


@pytest.mark.parametrize(
    ("text", "first", "whole"),
    [
        ("", "OSError", ""),
        ("  one \n two ", "one", "one two"),
        ("tab\tand  spaces", "tab and spaces", "tab and spaces"),
        (f"cannot open '{SIGNED}'", "cannot open 'https://host:8080/a/b.tif'",
         "cannot open 'https://host:8080/a/b.tif'"),
        ("s3://key:SECRET@bucket is none", "s3://bucket is none", "s3://bucket is none"),
        ("abfs://container@account is none", "abfs://container@account is none", "abfs://container@account is none"),
        ("http://host: me@here", "http://host: me@here", "http://host: me@here"),
        ("GET http://h/a?SECRET failed", "GET http://h/a?SECRET failed", "GET http://h/a failed"),
        ("http 403 (http://h/a?sig=SECRET)\nmore", "http 403 (http://h/a)", "http 403 (http://h/a) more"),
        ("really? yes", "really? yes", "really? yes"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_without_secrets(text: str, first: str, whole: str) -> None:
    assert first_line(OSError(text)) == first
    assert one_line(OSError(text)) == one_line(text) == whole


def test_a_long_error_is_cut_unless_it_is_wanted_whole() -> None:
    text = "x" * 500
    assert one_line(text) == "x" * 197 + "..."
    assert one_line(text, 10) == "x" * 7 + "..."
    assert one_line(text, None) == text
    assert first_line(OSError(text)) == text
