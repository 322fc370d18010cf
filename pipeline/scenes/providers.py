"""What reading a provider's file needs: addresses resolved and signed, endpoints, and how an address may be shown."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from urllib.parse import unquote, urlsplit

from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.ground.urls import bare_href, bucket_of, is_url, one_line


def readable(href: str) -> str:
    """The address that GDAL opens now: signed where the provider wants that. It is a secret: never store or show it.

    Planetary Computer's tokens end within the hour, so files are signed when they are opened; its package keeps a token
    as long as it is good. Without the package the address stays as it is, and `advice` tells why it is refused.

    Raises:
        ReadError: the provider gives no token.
    """
    if is_url(href):
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_hide_signatures)
    if bucket_of(href) not in _SIGNED or urlsplit(href).query:
        return href
    try:
        from planetary_computer.sas import get_token
    except ImportError:
        return href
    account = (urlsplit(href).hostname or "").partition(".")[0]
    container = urlsplit(href).path.split("/")[1]
    try:
        return str(get_token(account, container, retry_total=4, retry_backoff_factor=0.3).sign(href).href)
    except (OSError, ValueError) as error:  # of requests; of pydantic, for an answer that is no token
        raise ReadError(
            f"{bare_href(href)} cannot be signed: Planetary Computer gives no token ({type(error).__name__}); "
            "check the network and PC_SDK_SAS_URL, and try again"
        ) from None


#: Loggers of rasterio that name the files it opens.
_LOGGERS = ("rasterio", "rasterio._base", "rasterio._env", "rasterio._err", "rasterio._io", "rasterio._filepath")


def _hide_signatures(record: logging.LogRecord) -> bool:
    """Take the query strings out of a log record."""
    record.msg, record.args = one_line(record.getMessage()), ()
    return True


def gdal_options(href: str) -> dict[str, str]:
    """GDAL's options for an address beyond those of every file. What the environment says of the endpoint counts."""
    bucket, options = bucket_of(href), {}
    if bucket == "eodata" and urlsplit(href).scheme == "s3":
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
        if "AWS_S3_ENDPOINT" not in os.environ:
            options["AWS_S3_ENDPOINT"] = _EODATA_ENDPOINT
    if requester_pays(href):
        options["AWS_REQUEST_PAYER"] = "requester"
    return options


def advice(href: str, status: int | None = None) -> str:
    """What to do about a file that does not open; `status` is what its server answered."""
    bucket = bucket_of(href)
    if bucket in _SIGNED and not _can_sign():
        return "Planetary Computer wants signed requests: pip install 'difffusr[planetary-computer]'"
    if bucket == "eodata" and urlsplit(href).scheme == "s3":
        return "CDSE wants S3 keys of its own: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or check the file"
    if requester_pays(href):
        return "its bucket is requester pays: set AWS credentials that may be charged, or check the file"
    if status in (401, 403):
        return "access is refused: set credentials, take a signed address that has not expired, or leave the scene out"
    return "check that the file exists and is whole, or leave the scene out"


def _can_sign() -> bool:
    return importlib.util.find_spec("planetary_computer") is not None


def requester_pays(href: str) -> bool:
    """Whether the reader of a file pays for its transfer."""
    return bucket_of(href) in _REQUESTER_PAYS


#: Storage accounts of Planetary Computer whose files open only with its tokens.
_SIGNED = frozenset({"sentinel2l2a01"})


#: Buckets whose readers pay for requests and transfer.
_REQUESTER_PAYS = frozenset({"sentinel-s2-l2a"})


#: Where CDSE keeps its bucket `eodata`.
_EODATA_ENDPOINT = "eodata.dataspace.copernicus.eu"


_SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")


def resolve(href: str, base: str, remote: bool, what: str) -> str:
    """An href of a document at `base` as a URL or an absolute path.

    Raises CatalogError for a scheme that is not one of storage, and for a local file named by a remote catalogue.
    """
    if base.startswith("file://"):
        base = unquote(urlsplit(base).path)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+._-]*:", href)
    if href.startswith("/"):
        pass
    elif scheme is None:
        from pystac.utils import make_absolute_href  # readers of chips do without

        href = str(make_absolute_href(href, base, start_is_dir=False))
    elif href.lower().startswith("file:///"):
        href = unquote(urlsplit(href).path)
    elif urlsplit(href).scheme not in _SCHEMES or not urlsplit(href).netloc:
        raise CatalogError(
            f"{what}: href {bare_href(href)!r}: expected a path or one of {', '.join(_SCHEMES)}://; correct the item"
        )
    if remote and (href.startswith("/") or not is_url(href)):  # "/vsicurl/http://…" is for GDAL to open, here
        raise CatalogError(f"{what}: href {href!r} is a local file, which a remote catalogue may not name")
    # A signature that came with the item is no part of a scene: it is a secret, and it expires.
    return bare_href(href) if bucket_of(href) in _SIGNED and _can_sign() else href
