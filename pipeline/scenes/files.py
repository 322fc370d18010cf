"""A scene's files: opened, checked, kept open, and read again where an error may be temporary."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import NamedTuple, TypeVar

import rasterio
from rasterio.errors import CRSError, RasterioIOError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
    wait_random,
)

from difffusr.pipeline.ground.errors import ReadError
from difffusr.pipeline.ground.urls import bare_href, host_of, is_url, one_line
from difffusr.pipeline.scenes.checks import Held, checked
from difffusr.pipeline.scenes.item import Asset, Scene
from difffusr.pipeline.scenes.providers import advice, gdal_options, readable

log = logging.getLogger("difffusr.raster")

#: GDAL for cloud-optimised files over a network: no directory listings, merged ranges, no separate request for a file's
#: size (signed addresses often do not allow it). A request is given up after 10 s without a connection, 6 s below
#: 10 kB/s, 60 s in all. `patiently` retries: GDAL's own retries (429, 500, 502–504, connections reset, requests timed
#: out) would multiply the 60 s, ignore servers that stall, and lose the reason. One thread: OpenJPEG does not report
#: a damaged tile from its other threads, and the read succeeds with wrong pixels.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "CPL_VSIL_CURL_USE_HEAD": "NO",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "10000",
    "GDAL_HTTP_LOW_SPEED_TIME": "6",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "0",
    "VSI_CACHE": "TRUE",
    "GDAL_NUM_THREADS": "1",
}

#: How often a file on a network is tried while errors may be temporary; the first pause (then twice as long each time,
#: plus up to one more first pause at random); when no further try begins.
_ATTEMPTS, _FIRST_PAUSE_S, _PATIENCE_S = 5, 1.0, 45.0

#: Seconds of waiting after which it is said.
_SAID_AFTER_S = 10.0

#: Files of a scene, with one of a mask. Those that a thread keeps open: all bands of three scenes, as many as a chip
#: usually has.
_FILES_A_SCENE, _FILES_KEPT = 14, 39

#: Bytes that GDAL keeps of each open file on a network, unless told otherwise.
_VSI_CACHE_BYTES = 25_000_000

T = TypeVar("T")


@contextmanager
def opened(
    scene: Scene, band: str, asset: Asset, *, afresh: bool = False, keep: bool = False
) -> Iterator[rasterio.DatasetReader]:
    """Open a scene's file and check its CRS, position and content against the item.

    Args:
        afresh: bypass GDAL's cache, which keeps failures, too, for the life of the process.
        keep: leave the file open for this thread's next read, unless the block fails. A file on disk that has changed
            by then is opened again.

    Raises:
        ReadError: the file is missing, damaged, in another CRS or off the lattice, or its server fails.
    """
    with held_open(scene, band, asset, afresh=afresh, keep=keep) as held:
        yield held.file


@contextmanager
def held_open(scene: Scene, band: str, asset: Asset, *, afresh: bool, keep: bool) -> Iterator[Held]:
    """See `opened`."""
    key = _Key(asset.href, asset.driver, scene.epsg, asset.gsd_m, asset.scale, band, _stamp(asset.href))
    held = None if afresh else _kept.take(key)
    # Options count when a file is opened, and for reads over a network.
    with rasterio.Env(**_options(asset.href, afresh)) if held is None or is_url(asset.href) else nullcontext():
        if held is None:
            held = _open(scene, band, asset)
        try:
            yield held
        except BaseException:
            held.file.close()
            raise
        if keep:
            _kept.put(key, held)
        else:
            held.file.close()


#: A proxy that is not there: GDAL follows redirects to ftp, which no option forbids.
_NO_FTP = dict.fromkeys(("ftp_proxy", "ftps_proxy"), "http://127.0.0.1:1")


def _open(scene: Scene, band: str, asset: Asset) -> Held:
    for name, value in _NO_FTP.items():
        os.environ.setdefault(name, value)
    try:
        # GDAL would go by content, and a file of another format (VRT) may name files of this machine.
        file = rasterio.open(readable(asset.href), driver=asset.driver)
    except ReadError as error:
        raise ReadError(f"scene {scene.id}, {band}: {error}") from None
    except (RasterioIOError, CRSError) as error:
        raise _unopened(scene, band, asset, error) from None
    try:
        return checked(scene, band, asset, file)
    except BaseException:
        file.close()
        raise


class _Key(NamedTuple):
    """What identifies a kept file: all that it was checked against, and its state on disk."""

    href: str
    driver: str
    epsg: int
    gsd_m: float
    scale: float | None
    band: str
    stamp: tuple[int, ...]


def _stamp(href: str) -> tuple[int, ...]:
    """Changes when a file on disk changes; () for URLs and missing files."""
    path = href.removeprefix("file://")
    if is_url(path):
        return ()
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns


class _Kept(threading.local):
    """Files that a thread keeps open between reads: the next chip mostly needs the same, and opening takes longer than
    reading. Per thread, as GDAL's handles must not be shared. The least recently used are closed."""

    def __init__(self) -> None:
        self._files: dict[_Key, Held] = {}
        self.room = _FILES_KEPT

    def take(self, key: _Key) -> Held | None:
        """A kept file, which the caller now owns, or None."""
        return self._files.pop(key, None)

    def put(self, key: _Key, held: Held) -> None:
        """Keep a file, and close those beyond the limit."""
        if (other := self._files.pop(key, None)) is not None:
            other.file.close()
        self._files[key] = held
        while len(self._files) > self.room:
            self._files.pop(next(iter(self._files))).file.close()


_kept = _Kept()


def make_room(scenes: int) -> None:
    """Let this thread keep the files of so many scenes open, if that is more than usual; they share the same cache."""
    _kept.room = max(_kept.room, _FILES_A_SCENE * scenes)


def _options(href: str, afresh: bool) -> dict[str, str]:
    """GDAL's options for a file. Those set in the environment take precedence."""
    wanted = GDAL_OPTIONS
    if _kept.room > _FILES_KEPT:
        wanted = {**wanted, "VSI_CACHE_SIZE": str(_VSI_CACHE_BYTES * _FILES_KEPT // _kept.room)}
    chosen = {name: value for name, value in wanted.items() if name not in os.environ}
    return {**chosen, **gdal_options(href), **({"CPL_VSIL_CURL_NON_CACHED": "/vsi"} if afresh else {})}


class PassingReadError(ReadError):
    """A read over a network failed, perhaps only for now: a busy or broken server, a lost or slow connection."""


def patiently(href: str, read: Callable[[bool], T]) -> T:
    """The result of a read, repeated with growing pauses while it raises PassingReadError.

    Args:
        read: its argument says whether to bypass GDAL's cache.
    """
    if not is_url(href):
        return read(False)
    attempts = Retrying(
        retry=retry_if_exception_type(PassingReadError),
        stop=stop_after_attempt(_ATTEMPTS) | stop_before_delay(_PATIENCE_S),
        wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=30) + wait_random(0, _FIRST_PAUSE_S),
        before_sleep=partial(_say, href),
        reraise=True,
    )
    for attempt in attempts:
        with attempt:
            return read(True) if attempt.retry_state.attempt_number > 1 else _confirmed(read)
    raise AssertionError  # the last attempt raised


def _say(href: str, state: RetryCallState) -> None:
    """Say what is waited for, once waiting has taken `_SAID_AFTER_S`."""
    waited = state.seconds_since_start or 0.0
    level = logging.WARNING if waited >= _SAID_AFTER_S else logging.DEBUG
    error = state.outcome.exception() if state.outcome else None
    log.log(level, "waiting for %s since %.0f s, try %d: %s", host_of(href), waited, state.attempt_number, error)


def _confirmed(read: Callable[[bool], T]) -> T:
    """A first read. A lasting failure is confirmed without the cache, where GDAL may have it from an earlier read."""
    try:
        return read(False)
    except PassingReadError:
        raise
    except ReadError:
        return read(True)


#: HTTP statuses as GDAL reports them, and those that may be temporary.
_STATUS = re.compile(r"HTTP response code: (\d{3})")
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)

#: "does not exist in the file system" is how GDAL remembers a request without answer; for a missing file it gives the
#: server's status. Of AWS's answers it gives only the text.
_NO_ANSWER = re.compile(
    r"CURL error|does not exist in the file system|Invalid AWS response|reduce your request rate|internal error"
    r"|Service Unavailable|timed? ?out",
    re.IGNORECASE,
)

#: Missing bytes. libtiff tells them from wrong bytes, OpenJPEG does not.
_CUT_SHORT = re.compile(r"read error|can ?not read|opj_|stream too short", re.IGNORECASE)


def _unopened(scene: Scene, band: str, asset: Asset, error: BaseException) -> ReadError:
    """The error for a file that does not open."""
    reason = _reason(error)
    status = int(found[1]) if (found := _STATUS.search(reason)) else None
    passing = status in _PASSING_STATUS if status else bool(_NO_ANSWER.search(reason) or _CUT_SHORT.search(reason))
    what = f"scene {scene.id}, {band}: {bare_href(asset.href)} cannot be opened ({reason})"
    if passing and is_url(asset.href):
        return PassingReadError(f"{what}; its server is busy or broken: run again later, or leave the scene out")
    return ReadError(f"{what}; {advice(asset.href, status)}")


def unread(scene: Scene, band: str, asset: Asset, error: BaseException) -> ReadError:
    """The error for a file that opens but cannot be read."""
    reason = _reason(error)
    what = f"scene {scene.id}, {band}: {bare_href(asset.href)} is damaged or incomplete ({reason})"
    passing = is_url(asset.href) and _CUT_SHORT.search(" ".join(map(str, _causes(error))))
    return (PassingReadError if passing else ReadError)(f"{what}; fetch it again, or leave the scene out")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or below.__context__


def _reason(error: BaseException) -> str:
    """What went wrong, by the innermost error, without signatures."""
    *_, innermost = _causes(error)
    reason = one_line(innermost) or type(innermost).__name__
    return re.sub(r" - Failure writing output.*|(?<=supported file format)\..*", "", reason)
