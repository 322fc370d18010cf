"""What a path or URL points at, how it may be shown, and what is said of an error in one line."""

from __future__ import annotations

from typing import Any

import pytest

from difffusr.pipeline.ground.urls import (
    bare_href,
    bucket_of,
    first_line,
    is_remote,
    is_url,
    one_line,
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
    ],
)
def test_a_url_is_told_from_a_path_and_another_machine_from_this_one(href: str, url: bool, remote: bool) -> None:
    assert (is_url(href), is_remote(href)) == (url, remote)


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
