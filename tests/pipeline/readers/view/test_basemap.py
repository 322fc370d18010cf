"""A basemap is a template of an address; the page may ask its server, and no other."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.view.basemap import Basemap
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.server import map_app

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


@pytest.mark.parametrize(
    ("template", "origin"),
    [
        ("https://tiles.example.org/{z}/{x}/{y}.png", "https://tiles.example.org"),
        ("http://127.0.0.1:8080/{z}/{x}/{y}.jpg", "http://127.0.0.1:8080"),
        ("HTTPS://Tiles.Example.org:443/a/{z}/{y}/{x}", "https://tiles.example.org"),
        ("https://example.org/wmts?layer=a&key=s3cret&z={z}&x={x}&y={y}", "https://example.org"),
        ("https://münchen.example/{z}/{x}/{y}@2x.png", "https://xn--mnchen-3ya.example"),
    ],
)
def test_a_template_allows_its_own_origin(storage, template, origin):
    basemap = Basemap.of(template)
    assert basemap.origin == origin
    assert basemap.url.startswith(f"{origin}/")
    assert basemap.credit.endswith(origin.partition("//")[2].partition(":")[0])
    client = TestClient(map_app(map_cube(Cube(storage)), {}, basemap=basemap))
    rules = dict(part.split(" ", 1) for part in client.get("/").headers["content-security-policy"].split("; "))
    assert rules.pop("img-src") == f"'self' data: blob: {origin}"
    assert rules.pop("connect-src") == f"'self' {origin}"
    assert not any(origin in rule for rule in rules.values())
    assert client.get("/cube.json").json()["basemap"] == {"url": basemap.url, "credit": basemap.credit}


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("https://example.org/{z}/{x}.png", "does not have {y} once behind its host"),
        ("https://example.org/tiles.png", "does not have {z}, {x}, {y} once"),
        ("https://example.org/{z}/{z}/{x}/{y}.png", "does not have {z} once"),
        ("https://{z}.example.org/{x}/{y}.png", "has the host {z}.example.org"),
        ("https://{s}.example.org/{z}/{x}/{y}.png", "has the host {s}.example.org"),
        ("https://example.org/{z}/{x}/{y}{r}.png", "has something besides {z}, {x} and {y}"),
        ("https://example.org/{z}/{x}/{y}.png; script-src *", "has something besides {z}, {x} and {y}"),
        ("https://example.org; script-src */{z}/{x}/{y}.png", "has the host example.org; script-src *"),
        ("ftp://example.org/{z}/{x}/{y}.png", "is not of http or https"),
        ("/tiles/{z}/{x}/{y}.png", "is not of http or https"),
        ("javascript:{z}{x}{y}", "is not of http or https"),
        ("https:///{z}/{x}/{y}.png", "has no host"),
        ("https://[::1]/{z}/{x}/{y}.png", "has the host ::1"),
        ("https://example.org:port/{z}/{x}/{y}.png", "is no URL"),
        ("https://me:word@example.org/{z}/{x}/{y}.png", "has a login"),
        ("", "is not of http or https"),
    ],
)
def test_what_is_no_template_is_said_in_one_line(view, storage, template, said):
    code, out, error = view(storage.url, "--basemap", template, "--no-browser")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: --basemap: ")
    assert said in error
    assert error.rstrip().endswith("expected http(s)://host/…/{z}/{x}/{y}.png")
    assert "word" not in error


def test_keys_of_a_wrong_template_are_not_shown():
    with pytest.raises(ConfigError) as raised:
        Basemap.of("https://example.org/{z}/{x}.png?key=s3cret")
    assert "s3cret" not in str(raised.value)


def test_a_credit_needs_a_basemap(view, storage):
    code, _, error = view(storage.url, "--basemap-credit", "© somebody")
    assert (code, error.count("\n")) == (2, 1)
    assert "give --basemap as well" in error


def test_without_a_basemap_the_page_asks_nobody(client):
    assert client.get("/cube.json").json()["basemap"] is None
    headers = client.get("/").headers
    assert "http" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
