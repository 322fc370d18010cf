"""Files open where their providers keep them: behind signatures, on endpoints of their own, and at a price."""

from __future__ import annotations

import datetime as dt
import http.server
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rasterio
import rasterio._path
from rasterio.transform import from_origin
from shapely.geometry import box

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.ground.unsigned import open_unsigned, opens_unsigned, unsigned_environment
from difffusr.pipeline.scenes import providers
from difffusr.pipeline.scenes.item import Asset, Scene, scene_from_item
from difffusr.pipeline.scenes.providers import (
    ELSEWHERE,
    PROVIDERS,
    DnRule,
    Provider,
    Signing,
    advice,
    gdal_options,
    provider_name,
    provider_of,
    readable,
    requester_pays,
    resolve,
)
from difffusr.pipeline.scenes.radiometry import Stored, offset_dn
from difffusr.pipeline.scenes.windows import read_overview

TOKEN = "st=2023-01-01&se=2099-01-01&sp=rl&sig=SIGNATURE-NOBODY-MAY-SEE"
SIGNATURE = "SIGNATURE-NOBODY-MAY-SEE"
BLOB = "http://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/32/T/PS/SCL.tif"


@pytest.fixture
def tiff(tmp_path: Path) -> Path:
    """A small file of classes."""
    path = tmp_path / "SCL.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32632", "nodata": 0}
    with rasterio.open(
        path, "w", width=60, height=60, transform=from_origin(600000, 5200080, 20, 20), **profile
    ) as file:
        file.write(np.full((60, 60), 4, np.uint8), 1)
    return path


def scene_at(href: str) -> Scene:
    asset = Asset(href, 20.0, 0, 0, None, None, "GTiff")
    when = dt.datetime(2023, 6, 1, tzinfo=dt.UTC)
    return Scene(
        "one",
        "c",
        when,
        "32TPS",
        32632,
        "05.09",
        0,
        "other",
        box(10, 46, 11, 47),
        {},
        asset,
        None,
        None,
        None,
        None,
        None,
    )


class Azure(http.server.BaseHTTPRequestHandler):
    """The token service, and (as a proxy) the storage account, which refuses whoever comes without a token."""

    file: Path
    tokens: list[str]
    broken = False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/token/"):
            self.tokens.append(parts.path)
            body = json.dumps({"msft:expiry": "2099-01-01T00:00:00Z", "token": TOKEN}).encode()
            self.answer(404 if self.broken else 200, body)
        elif parse_qs(parts.query).get("sig") != [SIGNATURE]:
            self.answer(409, b"Public access is not permitted on this storage account.")
        else:
            self.answer(200, self.file.read_bytes())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def azure(tiff: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Azure]]:
    sas = pytest.importorskip("planetary_computer.sas", reason="planetary_computer is not installed")
    handler = type("OneAzure", (Azure,), {"file": tiff, "tokens": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("PC_SDK_SAS_URL", f"http://{address}/token")
    monkeypatch.setenv("GDAL_HTTP_PROXY", address)
    monkeypatch.setenv("CPL_VSIL_CURL_NON_CACHED", "/vsicurl/")  # one test's refusal is not another's
    for _ in forget_tokens(sas):
        yield handler
    server.shutdown()
    server.server_close()


def forget_tokens(sas: Any) -> Iterator[None]:
    """The package's token and settings are as new before and after."""
    sas.TOKEN_CACHE.clear()
    sas.Settings.get.cache_clear()
    yield
    sas.TOKEN_CACHE.clear()
    sas.Settings.get.cache_clear()


def test_a_file_of_planetary_computer_is_signed_when_it_is_read(
    azure: type[Azure], caplog: pytest.LogCaptureFixture
) -> None:
    scene = scene_at(BLOB)
    with caplog.at_level(logging.DEBUG):
        data, _, _ = read_overview(scene, "SCL", 60)
        read_overview(scene, "SCL", 60)
    assert (data == 4).all()
    assert azure.tokens == ["/token/sentinel2l2a01/sentinel2-l2"]  # once for all files of a container
    assert SIGNATURE not in caplog.text
    assert SIGNATURE not in repr(scene)


def test_without_the_package_the_refusal_names_what_to_install(
    azure: type[Azure], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "planetary_computer"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "planetary_computer", None)
    with pytest.raises(ReadError, match=r"scene one, SCL: .*pip install 'difffusr\[planetary-computer\]'") as caught:
        read_overview(scene_at(BLOB), "SCL", 60)
    assert "\n" not in str(caught.value)


def test_a_token_service_that_is_broken_is_one_clear_error(azure: type[Azure]) -> None:
    azure.broken = True
    with pytest.raises(ReadError, match=r"scene one, SCL: .*SCL\.tif cannot be signed") as caught:
        read_overview(scene_at(BLOB), "SCL", 60)
    assert "\n" not in str(caught.value)


def test_only_planetary_computers_own_files_are_signed(azure: type[Azure]) -> None:
    for href in (
        "https://mine.blob.core.windows.net/c/x.tif",
        f"{BLOB}?sig=already",
        "s3://eodata/x.jp2",
        "/data/x.tif",
    ):
        assert readable(href) == href
    assert azure.tokens == []


def test_a_file_of_cdse_is_read_at_its_endpoint(tiff: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_S3_ENDPOINT": s3_endpoint.removeprefix("http://"),
        "AWS_HTTPS": "NO",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_VIRTUAL_HOSTING", raising=False)
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="eodata")
    client.put_object(Bucket="eodata", Key="Sentinel-2/MSI/L2A/SCL.tif", Body=tiff.read_bytes())
    data, _, _ = read_overview(scene_at("s3://eodata/Sentinel-2/MSI/L2A/SCL.tif"), "SCL", 60)
    assert (data == 4).all()
    with pytest.raises(ReadError, match=r"s3://eodata/other\.tif cannot be opened .*AWS_ACCESS_KEY_ID"):
        read_overview(scene_at("s3://eodata/other.tif"), "SCL", 60)


def test_options_follow_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_S3_ENDPOINT", raising=False)
    cdse = {"AWS_VIRTUAL_HOSTING": "FALSE", "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu"}
    assert gdal_options("s3://eodata/a.jp2") == cdse
    assert gdal_options("s3://sentinel-s2-l2a/a.jp2") == {"AWS_REQUEST_PAYER": "requester"}
    assert gdal_options("s3://sentinel-cogs/a.tif") == {"AWS_REGION": "us-west-2", "AWS_NO_SIGN_REQUEST": "YES"}
    for free in ("/data/a.tif", "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif", BLOB, "s3://mine/a.tif"):
        assert gdal_options(free) == {}
        assert not requester_pays(free)
    monkeypatch.setenv("AWS_S3_ENDPOINT", "mirror.example.org")
    assert gdal_options("s3://eodata/a.jp2") == {"AWS_VIRTUAL_HOSTING": "FALSE"}
    assert "requester pays" in advice("s3://sentinel-s2-l2a/a.jp2")
    assert "leave the scene out" in advice("/data/a.tif")


def test_a_signature_that_came_with_an_item_is_not_kept() -> None:
    href = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/B04.tif?st=2023&sig=SECRET"
    assert resolve(href, "/items.json", False, "item a") == href.partition("?")[0]


# ---- buckets open to everybody --------------------------------------------------------------------------------------


class Bucket(http.server.BaseHTTPRequestHandler):
    """An S3 service of one file: whoever signs is refused like a stranger, or whoever does not."""

    file: Path
    wants_keys = False
    asked: list[tuple[str, bool]]

    def do_GET(self) -> None:
        signed = "Authorization" in self.headers
        self.asked.append((self.path, signed))
        if signed != self.wants_keys:
            body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key is not in our records.</Message></Error>"
            self.send_response(403)
        else:
            body = self.file.read_bytes()
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def s3_service(tiff: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Bucket]]:
    """The service that every s3:// address leads to; nobody's keys but those of the test are known."""
    handler = type("OneBucket", (Bucket,), {"file": tiff, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("AWS_PROFILE", "AWS_NO_SIGN_REQUEST", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_S3_ENDPOINT": f"127.0.0.1:{server.server_port}",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CPL_AWS_AUTODETECT_EC2": "NO",
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # one test's refusal is not another's
    }.items():
        monkeypatch.setenv(name, value)
    yield handler
    open_unsigned(())
    server.shutdown()
    server.server_close()


KEYS = {"AWS_ACCESS_KEY_ID": "AKIAFOREIGN", "AWS_SECRET_ACCESS_KEY": "foreign"}


@pytest.mark.parametrize(
    "environment", [{}, KEYS, {"AWS_REGION": "eu-central-1", **KEYS}], ids=["none", "keys", "region"]
)
@pytest.mark.parametrize("bucket", ["sentinel-cogs", "e84-earth-search-sentinel-data", "of-my-own", "with.dots-1"])
def test_a_public_bucket_is_read_without_keys_whatever_keys_there_are(s3_service, monkeypatch, bucket, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    open_unsigned(["of-my-own", "with.dots-1"])
    data, _, _ = read_overview(scene_at(f"s3://{bucket}/32/T/NT/SCL.tif"), "SCL", 60)
    assert (data == 4).all()
    assert s3_service.asked
    assert {signed for _, signed in s3_service.asked} == {False}


@pytest.mark.parametrize("bucket", ["private", "sentinel-s2-l2a", "of-my-own-2", "my-sentinel-cogs"])
def test_any_other_bucket_is_read_with_keys(s3_service, monkeypatch, bucket):
    s3_service.wants_keys = True
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    open_unsigned(["of-my-own"])
    data, _, _ = read_overview(scene_at(f"s3://{bucket}/SCL.tif"), "SCL", 60)
    assert (data == 4).all()
    assert {signed for _, signed in s3_service.asked} == {True}


def test_a_mirror_of_a_public_bucket_may_want_keys(s3_service, monkeypatch):
    s3_service.wants_keys = True
    for name, value in {"AWS_NO_SIGN_REQUEST": "NO", **KEYS}.items():
        monkeypatch.setenv(name, value)
    data, _, _ = read_overview(scene_at("s3://sentinel-cogs/SCL.tif"), "SCL", 60)
    assert (data == 4).all()


def test_without_keys_the_refusal_names_the_key_for_buckets_open_to_everybody(s3_service):
    with pytest.raises(ReadError, match=r"one that is open to everybody its name in source\.unsigned") as caught:
        read_overview(scene_at("s3://of-somebody/SCL.tif"), "SCL", 60)
    assert "\n" not in str(caught.value)


def test_the_buckets_of_one_configuration_are_not_those_of_the_next():
    open_unsigned(["one", "two"])
    assert opens_unsigned("two")
    assert unsigned_environment()
    open_unsigned(())
    assert not opens_unsigned("two")
    assert not opens_unsigned(None)
    assert unsigned_environment() == {}


# ---- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.buckets[0])
def test_every_provider_has_buckets_and_knows_the_dn_of_its_files(provider: Provider) -> None:
    assert provider.name
    assert provider.radiometry
    assert provider.buckets
    for bucket in provider.buckets:
        assert provider_of(f"s3://{bucket}/a.tif") is provider
        assert provider_name(f"s3://{bucket}/a.tif") == provider.name


def test_no_bucket_belongs_to_two_providers() -> None:
    buckets = [bucket for provider in PROVIDERS for bucket in provider.buckets]
    assert len(buckets) == len(set(buckets))


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif", "earth-search"),
        (BLOB, "planetary-computer"),
        ("s3://eodata/a.jp2", "cdse"),
        ("https://eodata.dataspace.copernicus.eu/a.jp2", "cdse"),
        ("https://eodata.cloudferro.com/a.jp2", "cdse"),
        ("https://mirror.example.org/sentinel-cogs/a.tif", "other"),
        ("/data/sentinel-cogs/a.tif", "local"),
    ],
)
def test_a_file_belongs_to_who_serves_it(href: str, name: str) -> None:
    assert provider_name(href) == name


def test_the_dn_of_a_host_without_a_bucket_are_its_providers() -> None:
    href = "https://eodata.dataspace.copernicus.eu/T.jp2"
    stored = Stored("item i: asset B04", href, "JP2OpenJPEG", "sentinel-2-l2a", "05.09", None, None)
    assert offset_dn(stored) == -1000
    with pytest.raises(CatalogError, match="radiometry unknown: bucket eodata, collection mine"):
        offset_dn(stored._replace(collection="mine"))


NEW = Provider(
    name="new-archive",
    buckets=("new-bucket",),
    hosts=(r"data\.new\.example",),
    radiometry=(DnRule(r"s2-l2a", "GTiff", "by flag", "ignored"),),
    asset_names={f"band_{band.lower()}": band for band in BANDS} | {"classes": "SCL"},
    offset_flags=("new:harmonised",),
    signing=Signing("json", lambda href: f"{href}?signed", "install json"),  # a package that is always there
    endpoint="s3.new.example",
    requester_pays=True,
)


def item_of(where: str, *, harmonised: bool | None) -> dict[str, Any]:
    """An item of the new provider, in its own words."""
    keys = [*NEW.asset_names]
    return {
        "id": "one",
        "collection": "s2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [[[10, 46], [11, 46], [11, 47], [10, 46]]]},
        "properties": {
            "datetime": "2023-06-01T10:00:00Z",
            "grid:code": "MGRS-32TPS",
            "s2:processing_baseline": "05.09",
            "new:harmonised": harmonised,
        },
        "assets": {key: {"href": f"{where}/{key}.tif", "type": "image/tiff"} for key in keys},
    }


@pytest.mark.parametrize("where", ["s3://new-bucket/one", "https://data.new.example/one"])
def test_an_entry_in_the_table_is_all_that_a_new_provider_needs(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.delenv("AWS_S3_ENDPOINT", raising=False)
    with pytest.raises(CatalogError, match="no file of B01"):
        scene_from_item(item_of(where, harmonised=True), "/items.json")
    monkeypatch.setattr(providers, "PROVIDERS", (*PROVIDERS, NEW))
    for harmonised, offset in ((True, 0), (False, -1000)):
        scene = scene_from_item(item_of(where, harmonised=harmonised), "/items.json")
        assert scene.provider == "new-archive"
        assert {band: asset.href for band, asset in scene.assets.items()} == {
            band: f"{where}/band_{band.lower()}.tif" for band in BANDS
        }
        assert {asset.offset_dn for asset in scene.assets.values()} == {offset}
        assert scene.scl is not None
    with pytest.raises(CatalogError, match=r"radiometry unknown: bucket new-bucket, .*boa_offset_applied absent"):
        scene_from_item(item_of(where, harmonised=None), "/items.json")
    href = f"{where}/a.tif"
    assert readable(href) == f"{href}?signed"
    assert resolve(f"{href}?old", "/items.json", False, "item one") == href
    assert requester_pays(href)
    own = {"AWS_VIRTUAL_HOSTING": "FALSE", "AWS_S3_ENDPOINT": "s3.new.example"} if where.startswith("s3") else {}
    assert gdal_options(href) == {**own, "AWS_REQUEST_PAYER": "requester"}


def test_what_no_provider_is_known_for_is_opened_as_it_is() -> None:
    href = "https://mirror.example.org/a.tif?sig=mine"
    assert provider_of(href) is ELSEWHERE
    assert readable(href) == resolve(href, "/items.json", False, "item one") == href


@pytest.mark.parametrize(
    ("href", "file"),
    [
        ("B02.tif", "B02.tif"),
        ("./a%20b.tif", "a b.tif"),
        ("a%20b.tif", "a%20b.tif"),
        ("l%C3%A4uft%20%232/B02.tif", "läuft #2/B02.tif"),
        ("läuft #2/B02.tif", "läuft #2/B02.tif"),
        (".\\a\\B02.tif", "a/B02.tif"),
        ("a\\B02.tif", "a\\B02.tif"),
        ("100%.tif", "100%.tif"),
        ("B02.tif?x=1", "B02.tif?x=1"),
        ("a%00b.tif", "a%00b.tif"),
    ],
)
def test_beside_a_document_on_disk_an_href_means_the_file_that_is_there(tmp_path: Path, href: str, file: str) -> None:
    found = tmp_path / "nicht? #1" / file
    found.parent.mkdir(parents=True)
    found.touch()
    (tmp_path / "nicht").mkdir()
    (tmp_path / "nicht" / "B02.tif").touch()  # what a URL's path would be
    assert resolve(href, str(tmp_path / "nicht? #1" / "item.json"), False, "item i") == str(found)


@pytest.mark.parametrize(
    "href", ["C:\\B02.tif", "..\\none.tif", "http://[x/B02.tif", "s3:///B02.tif", "a\nb.tif", "", "x\0?"]
)
def test_an_href_that_points_nowhere_is_refused_in_one_line(href: str) -> None:
    with pytest.raises(CatalogError, match="item i: asset red: href") as caught:
        resolve(href, "/data/item.json", False, "item i: asset red")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("href", "opened"),
    [
        ("s3://mine/nicht? #2/B02.tif", "/vsis3/mine/nicht? #2/B02.tif"),
        ("gs://mine/#/B02.tif", "/vsigs/mine/#/B02.tif"),
        ("s3://mine/B02.tif", "s3://mine/B02.tif"),
        ("/data/nicht? #2/B02.tif", "/data/nicht? #2/B02.tif"),
        ("https://host/B02.tif?x=1", "https://host/B02.tif?x=1"),
    ],
)
def test_a_file_is_opened_under_its_whole_name(href: str, opened: str) -> None:
    assert readable(href) == opened
    seen_by_gdal = rasterio._path._vsi_path(rasterio._path._parse_path(opened))
    assert seen_by_gdal.endswith(href.partition("://")[2] or href)
