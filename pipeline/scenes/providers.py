"""Who serves Sentinel-2 scenes: one table. To add a provider, add an entry to `PROVIDERS`; nothing else changes.

An entry lists the buckets and hosts of the provider's files, how their DN are stored, what its catalogue calls bands
and the removed offset, and how its files are opened: signed, at an S3 endpoint, at the reader's cost.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.ground.unsigned import opens_unsigned
from difffusr.pipeline.ground.urls import bare_href, bucket_of, is_loopback, is_remote, is_url, located, one_line


@dataclass(frozen=True)
class DnRule:
    """How the DN of some of a provider's files are stored, from processing baseline 04.00 on.

    Attributes:
        collection: regular expression that the whole name of the item's collection matches.
        driver: GDAL's driver of the file.
        pixels: "as produced" (ESA's offset of +1000 is in the DN, so −1000 is to be added) or "by flag" (the item's
            boa_offset_applied says whether the host has removed it).
        declared: what to do with the item's raster offset: "ignored" (known to be wrong there), "checked" (an error if
            it is given and not −0.1), "needed" (an error unless it is −0.1).
        path: regular expression that the whole path of the file matches, None for any.
    """

    collection: str
    driver: Literal["GTiff", "JP2OpenJPEG"]
    pixels: Literal["as produced", "by flag"]
    declared: Literal["ignored", "checked", "needed"]
    path: str | None = None


@dataclass(frozen=True)
class Signing:
    """How the URLs of a provider are signed.

    Attributes:
        package: that `sign` imports. Without it URLs stay as they are.
        sign: a URL without query → the same with a signature, which is a secret. Raises ReadError.
        advice: what to do about a refused file where the package is missing.
    """

    package: str
    sign: Callable[[str], str]
    advice: str

    @property
    def possible(self) -> bool:
        """Whether the package is installed."""
        return importlib.util.find_spec(self.package) is not None


@dataclass(frozen=True)
class Provider:
    """Who serves scenes, and how to read them.

    Attributes:
        name: shown in plans and logs.
        buckets: its buckets and storage accounts (see `bucket_of`).
        hosts: regular expressions for the hosts of its URLs that name no bucket.
        radiometry: the first rule that fits a file applies; if none fits, its radiometry is unknown, an error.
        asset_names: band by asset key in small letters, with or without its resolution, for keys that do not name the
            band as in B02, B8A_20m, SCL. They hold for the items of all providers, as copies keep their keys.
        offset_flags: properties of items that say whether the host has removed the offset (see `DnRule`).
        signing: None where files open without.
        endpoint: host of its S3 service, with buckets in paths, where it is not AWS; AWS_S3_ENDPOINT overrides it.
        advice: what to do about an s3:// file that does not open; "" for the usual.
        requester_pays: whether readers pay for requests and transfer.
        public: whether everybody may read its buckets without keys: requests are not signed then, for a signature by
            keys that belong elsewhere is refused.
        region: AWS's name for where its buckets are; None where GDAL finds it by itself.
    """

    name: str
    buckets: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    radiometry: tuple[DnRule, ...] = ()
    asset_names: Mapping[str, str] = field(default_factory=dict)
    offset_flags: tuple[str, ...] = ()
    signing: Signing | None = None
    endpoint: str | None = None
    advice: str = ""
    requester_pays: bool = False
    public: bool = False
    region: str | None = None


def _signed_by_planetary_computer(href: str) -> str:
    """A URL with a token. Tokens end within the hour, so files are signed when they are opened; the package keeps a
    token while it is valid."""
    try:
        from planetary_computer.sas import get_token
    except ImportError:
        return href
    account = (urlsplit(href).hostname or "").partition(".")[0]
    container = urlsplit(href).path.split("/")[1]
    try:
        return str(get_token(account, container, retry_total=4, retry_backoff_factor=0.3).sign(href).href)
    except (OSError, ValueError) as error:  # of requests; of pydantic, where the answer is not a token
        raise ReadError(
            f"{bare_href(href)} cannot be signed: Planetary Computer gives no token ({type(error).__name__}); "
            "check the network and PC_SDK_SAS_URL, and try again"
        ) from None


#: No two have a bucket in common.
PROVIDERS: tuple[Provider, ...] = (
    # Earth Search's converter to COGs removes the offset and says so by a flag, but copies the product's raster offset
    # (−0.1) to COGs and originals alike. Its Collection-1 collection does not remove it.
    Provider(
        name="earth-search",
        buckets=("sentinel-cogs",),
        radiometry=(DnRule(r"sentinel-2-l2a|sentinel-s2-l2a-cogs", "GTiff", "by flag", "ignored"),),
        asset_names={
            "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05", "rededge2": "B06",
            "rededge3": "B07", "nir": "B08", "nir08": "B8A", "nir09": "B09", "swir16": "B11", "swir22": "B12",
            "cloud": "CLD",
        },
        offset_flags=("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"),
        public=True,
        region="us-west-2",
    ),
    Provider(
        name="earth-search",
        buckets=("sentinel-s2-l2a",),
        radiometry=(DnRule(r".*", "JP2OpenJPEG", "as produced", "ignored"),),
        requester_pays=True,
    ),
    Provider(
        name="earth-search",
        buckets=("e84-earth-search-sentinel-data",),
        radiometry=(DnRule(r"sentinel-2-c1-l2a", "GTiff", "as produced", "checked"),),
        public=True,
        region="us-west-2",
    ),
    # Planetary Computer (COGs) and CDSE (JP2) keep the products' DN.
    Provider(
        name="planetary-computer",
        buckets=("sentinel2l2a01",),
        radiometry=(DnRule(r"sentinel-2-l2a", "GTiff", "as produced", "checked"),),
        signing=Signing(
            package="planetary_computer",
            sign=_signed_by_planetary_computer,
            advice="Planetary Computer wants signed requests: pip install 'difffusr[planetary-computer]'",
        ),
    ),
    Provider(
        name="cdse",
        buckets=("eodata",),
        hosts=(r"eodata\..+",),
        radiometry=(DnRule(r"sentinel-2-.*l2a.*", "JP2OpenJPEG", "as produced", "checked"),),
        endpoint="eodata.dataspace.copernicus.eu",
        advice="CDSE wants S3 keys of its own: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or check the file",
    ),
)  # fmt: skip

#: A file in the folders of a SAFE product, as stactools describes them.
_SAFE_FILE = r".*/IMG_DATA/R\d0m/[^/]+_B\w\w_\d0m\.(tif|jp2)"

#: Copies elsewhere, on URLs or disks: SAFE products as produced; COGs like Earth Search's by its flag; COGs of
#: Collection 1 where the item says so; JP2, which nobody encodes anew, as produced.
ELSEWHERE = Provider(
    name="other",
    radiometry=(
        DnRule(r".*", "JP2OpenJPEG", "as produced", "checked", path=_SAFE_FILE),
        DnRule(r".*", "GTiff", "as produced", "needed", path=_SAFE_FILE),
        DnRule(r"sentinel-2-l2a|sentinel-s2-l2a-cogs", "GTiff", "by flag", "ignored"),
        DnRule(r"sentinel-2-c1-l2a", "GTiff", "as produced", "needed"),
        DnRule(r"sentinel-(2|2-c1|s2)-l2a", "JP2OpenJPEG", "as produced", "ignored"),
    ),
)


def provider_of(href: str) -> Provider:
    """The provider of a file, `ELSEWHERE` if it is not in the table."""
    if not is_url(href):
        return ELSEWHERE
    bucket, host = bucket_of(href), urlsplit(href).hostname or ""
    for provider in PROVIDERS:
        if bucket in provider.buckets or (bucket is None and any(re.fullmatch(one, host) for one in provider.hosts)):
            return provider
    return ELSEWHERE


def provider_name(href: str) -> str:
    """The name of a file's provider; "local" for a path."""
    return provider_of(href).name if is_url(href) else "local"


def asset_names() -> dict[str, str]:
    """Band by asset key in small letters, for keys that do not name the band: those of all providers."""
    return {key: band for provider in PROVIDERS for key, band in provider.asset_names.items()}


def offset_flags() -> list[str]:
    """The properties of items that say whether the offset has been removed, the first to be believed."""
    return [name for provider in PROVIDERS for name in provider.offset_flags]


# ---- opening --------------------------------------------------------------------------------------------------------


def readable(href: str) -> str:
    """The address that GDAL opens now: signed where the provider needs that. It is a secret: never store or show it.

    Without the package that signs, the address stays as it is, and `advice` says why it is refused.

    Raises:
        ReadError: the provider gives no token.
    """
    if is_url(href):
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_hide_signatures)
    signing = provider_of(href).signing
    if signing is not None and not urlsplit(href).query and signing.possible:
        return signing.sign(href)
    parts = urlsplit(href)
    # rasterio takes what follows a # in a key for a fragment, and would open another object.
    return f"/vsi{parts.scheme}/{href.partition('://')[2]}" if parts.scheme in ("s3", "gs") and parts.fragment else href


#: rasterio's loggers that name the files it opens.
_LOGGERS = ("rasterio", "rasterio._base", "rasterio._env", "rasterio._err", "rasterio._io", "rasterio._filepath")


def _hide_signatures(record: logging.LogRecord) -> bool:
    """Remove the query strings from a log record."""
    record.msg, record.args = one_line(record.getMessage()), ()
    return True


def gdal_options(href: str) -> dict[str, str]:
    """GDAL's options for a file beyond those for every file. An endpoint set in the environment stays, and so does
    AWS_NO_SIGN_REQUEST: NO signs requests to a mirror of a public bucket that wants keys."""
    provider, options = provider_of(href), {}
    if urlsplit(href).scheme == "s3":
        if provider.endpoint:
            options["AWS_VIRTUAL_HOSTING"] = "FALSE"
            if "AWS_S3_ENDPOINT" not in os.environ:
                options["AWS_S3_ENDPOINT"] = provider.endpoint
        if provider.region:
            options["AWS_REGION"] = provider.region
        unsigned = provider.public or opens_unsigned(bucket_of(href))
        if unsigned and "AWS_NO_SIGN_REQUEST" not in os.environ:
            options["AWS_NO_SIGN_REQUEST"] = "YES"
    if provider.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    return options


def advice(href: str, status: int | None = None) -> str:
    """What to do about a file that does not open; `status` is what its server answered."""
    provider = provider_of(href)
    if provider.signing is not None and not provider.signing.possible:
        return provider.signing.advice
    if provider.advice and urlsplit(href).scheme == "s3":
        return provider.advice
    if provider.requester_pays:
        return "its bucket is requester pays: set AWS credentials that may be charged, or check the file"
    if urlsplit(href).scheme == "s3" and not provider.public and status != 404:
        return (
            "check that the file exists; a private bucket wants AWS credentials, one that is open to everybody its "
            "name in source.unsigned"
        )
    if status in (401, 403):
        return "access is refused: set credentials, take a signed address that has not expired, or leave the scene out"
    return "check that the file exists and is whole, or leave the scene out"


def requester_pays(href: str) -> bool:
    """Whether the reader of a file pays for its transfer."""
    return provider_of(href).requester_pays


_SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")


def resolve(href: str, base: str, remote: bool, what: str) -> str:
    """An href of a document at `base` as a URL or an absolute path.

    An href from the root (`/a/b.tif`) lies on the document's server; a server of this machine may also name a file of
    this machine so. Beside a document on disk, the file with the href's very name comes first, then the one that it
    means as a URL (`a%20b.tif`) or as a path of Windows (`a\\b.tif`).

    `what` begins errors. Raises CatalogError for a scheme other than those of storage, and for a local file where the
    document, or the catalogue that led to it (`remote`), is on another machine.
    """
    try:
        base = located(base, f"{os.getcwd()}/")
        remote = remote or is_remote(base)
        found = _on_disk(href, base, remote) or located(href, base)
    except ValueError as error:
        raise CatalogError(f"{what}: href {one_line(repr(bare_href(href)))} {error}; correct the item") from None
    if remote and not is_url(found):
        raise CatalogError(f"{what}: href {href!r} is a local file, which a remote catalogue may not name")
    if is_url(found) and urlsplit(found).scheme not in _SCHEMES:
        raise CatalogError(
            f"{what}: href {bare_href(href)!r}: expected a path or one of {', '.join(_SCHEMES)}://; correct the item"
        )
    # A signature in the item is not part of the scene: it is a secret, and it expires.
    signing = provider_of(found).signing
    return bare_href(found.partition("?")[0]) if signing is not None and signing.possible else found


def _on_disk(href: str, base: str, remote: bool) -> str | None:
    """A file of this machine that an href means but does not name letter by letter; None if there is none."""
    if remote:
        return None
    if is_url(base):
        return href if href.startswith("/") and is_loopback(base) and os.path.exists(href) else None
    if not {"%", "\\"} & set(href) or is_url(href) or href[:5].lower() == "file:":
        return None
    folder, plain = os.path.dirname(base), href.replace("\\", "/")
    names = [os.path.join(folder, name) for name in (href, unquote(href), plain, unquote(plain))]
    return next((os.path.normpath(name) for name in names if "\0" not in name and os.path.exists(name)), None)
