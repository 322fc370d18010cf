"""HTTP requests for STAC documents, repeated while an error may be temporary, and never waited for without end.

urllib3's retries do not fit: they are over when requests reads the body, so a document that stalls or breaks off would
not be asked for again. They also have no pause before the second try, and no time limit for all tries together.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import math
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

import requests.exceptions
import urllib3.exceptions
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import Response
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential, wait_random

from difffusr.pipeline.ground.urls import bare_href, host_of, is_loopback, located, one_line
from difffusr.pipeline.scenes.answers import ACCEPTED, UnreadableAnswerError, parts_of

log = logging.getLogger("difffusr.catalog")

#: Seconds without a byte after which a request is given up: for a document, and for a search, which takes longer.
DOCUMENT_S, SEARCH_S = 20.0, 45.0

#: Seconds without a connection after which a request is given up.
_CONNECT_S = 10.0

#: How often a request is tried while an error may be temporary; the first pause (then twice as long each time, plus up
#: to one more first pause at random); when no further try begins; the longest pause that a server may ask for.
_ATTEMPTS, _FIRST_PAUSE_S, _PATIENCE_S, _LONGEST_PAUSE_S = 4, 0.5, 60.0, 30.0

#: An answer that takes longer than this and comes more slowly than so many bytes a second is given up.
_SLOW_S, _SLOW_BYTES = 20.0, 1000.0

#: Seconds after which any answer is given up, from the request to its last byte, however it trickles: half a gigabyte,
#: the largest that is read, comes in that time over 15 Mbit/s.
_LONGEST_ANSWER_S = 300.0

#: After so many seconds it is said what is waited for.
_SAY_AFTER_S = 10.0

_REDIRECTS = 10


class RequestFailedError(APIError):
    """A request without a usable answer. Its text says why and names the host.

    Attributes:
        status_code: of the answer; None where none came.
        host: that was asked last, after redirects.
        passing: whether another try may succeed.
        too_much: whether a request for less may succeed.
        pause_s: how long the server asks to be left alone, within reason.
    """

    def __init__(
        self,
        why: str,
        host: str,
        status: int | None = None,
        *,
        passing: bool = True,
        too_much: bool = False,
        pause_s: float = 0.0,
    ) -> None:
        super().__init__(why)
        self.host, self.status_code = host, status
        self.passing, self.too_much, self.pause_s = passing, too_much, pause_s


class PatientIO(StacApiIO):
    """Requests of a STAC client, repeated with growing pauses when the server is away, busy, broken or silent."""

    def __init__(self, silence_s: float) -> None:
        # urllib3's retries would multiply with those here.
        super().__init__(timeout=(_CONNECT_S, silence_s), max_retries=None)
        self.session.headers["Accept-Encoding"] = ACCEPTED
        self._silence_s = silence_s

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text at a URL, for the STAC client. Raises RequestFailedError."""
        data = self.ask(href, method or "GET", headers, parameters)
        return data.decode(json.detect_encoding(data), "replace")

    def fetch(self, href: str) -> bytes:
        """The bytes at a URL. Raises RequestFailedError."""
        return self.ask(href)

    def ask(
        self,
        href: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        may_shrink: bool = False,
        waiting: Waiting | None = None,
    ) -> bytes:
        """The body of an answer.

        Args:
            parameters: the query of a GET, the JSON of a POST.
            may_shrink: whether the caller can ask for less: then what may be too much is given up sooner.
            waiting: of the caller, who asks several times for one thing.

        Raises:
            RequestFailedError: there is none, after several tries where that may help.
        """
        content = {"json": parameters} if method == "POST" else {"params": parameters}
        with nullcontext(waiting) if waiting else Waiting() as told:

            def enough(state: RetryCallState) -> bool:
                error = state.outcome.exception() if state.outcome else None
                tries = _ATTEMPTS
                if may_shrink and isinstance(error, RequestFailedError) and error.too_much:
                    tries = 2 if error.status_code else 1
                return state.attempt_number >= tries or stop_before_delay(_PATIENCE_S)(state)

            attempts = Retrying(
                retry=retry_if_exception(lambda error: isinstance(error, RequestFailedError) and error.passing),
                stop=enough,
                wait=_pause,
                before_sleep=told.paused,
                reraise=True,
            )
            return attempts(
                _within, _LONGEST_ANSWER_S, host_of(href), self._once, method, href, headers or {}, content, told
            )

    def _once(
        self, method: str, href: str, headers: Mapping[str, str], content: dict[str, Any], waiting: Waiting
    ) -> bytes:
        """One try, through redirects."""
        for _ in range(_REDIRECTS + 1):
            waiting.host = host_of(href)
            waiting.why = "no answer yet"
            try:
                response = self.session.request(
                    method, href, headers=headers, timeout=self.timeout, allow_redirects=False, stream=True, **content
                )
                with response:
                    onward = self.session.get_redirect_target(response)
                    if onward is None:
                        return self._body(response, waiting)
            except _NO_ANSWER as error:
                raise self._failure(error, host_of(href)) from None
            target = _redirected(str(response.url), onward)
            if host_of(target) != host_of(href):
                headers = {}  # they may hold a login
            # Unlike browsers: a search that is sent on is still the same search.
            method, content = ("GET", {}) if response.status_code == 303 else (method, {**content, "params": None})
            href = target
        raise RequestFailedError(
            f"{host_of(href)} redirects more than {_REDIRECTS} times", host_of(href), passing=False
        )

    def _body(self, response: Response, waiting: Waiting) -> bytes:
        """The body of an answer; an error for a status that is one."""
        host, status = host_of(str(response.url)), response.status_code
        began, body, size = time.monotonic(), io.BytesIO(), 0
        for part in parts_of(response.raw, response.headers.get("Content-Encoding") or ""):
            body.write(part)
            size += len(part)
            waiting.why = f"{size / 1000:.0f} kB so far"
            taken = time.monotonic() - began
            if taken > _SLOW_S and size / taken < _SLOW_BYTES:
                raise RequestFailedError(
                    f"{host}: answers too slowly, {size} bytes in {taken:.0f} s", host, too_much=True
                )
        if 200 <= status < 300:
            return body.getvalue()
        refused = status in (400, 422) and b"limit" in body.getvalue().lower()
        raise RequestFailedError(
            f"{host} answers with HTTP {status}",
            host,
            status,
            passing=status in (408, 429, 500, 502, 503, 504),
            too_much=refused or status in (408, 413) or status >= 500,
            pause_s=pause_asked_for(response.headers) if status in (413, 429, 503) else 0.0,
        )

    def _failure(self, error: Exception, host: str) -> RequestFailedError:
        """Why no answer came, or not all of it, in a few words."""
        causes = list(_causes(error))
        if isinstance(error, UnreadableAnswerError):
            return RequestFailedError(f"{host}: {error}", host, passing=False, too_much=True)
        if isinstance(error, EOFError | zlib.error):
            return RequestFailedError(f"{host}: the answer breaks off (IncompleteRead)", host, too_much=True)

        def first(*kinds: type[BaseException]) -> BaseException | None:
            return next((cause for cause in causes if isinstance(cause, kinds)), None)

        if first(urllib3.exceptions.NameResolutionError, socket.gaierror):
            found = first(socket.gaierror)
            return RequestFailedError(f"Failed to resolve {host}{_in_brackets(getattr(found, 'strerror', ''))}", host)
        if first(ConnectionRefusedError):
            return RequestFailedError(f"{host}: Connection refused", host)
        if first(requests.exceptions.ConnectTimeout):
            return RequestFailedError(f"{host}: Connection timed out after {_CONNECT_S:g} s", host)
        if first(requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
            why = f"{host}: Read timed out, no byte for {self._silence_s:g} s"
            return RequestFailedError(why, host, too_much=True)
        if tls := first(ssl.SSLError, urllib3.exceptions.SSLError, requests.exceptions.SSLError):
            said = re.sub(r"\[SSL[^]]*\] ?| ?\(_ssl\.c:\d+\)", "", str(first(ssl.SSLError) or tls))
            lasting = isinstance(first(ssl.SSLError), ssl.SSLCertVerificationError)
            return RequestFailedError(f"{host}: no secure connection: {one_line(said)}", host, passing=not lasting)
        if first(requests.exceptions.ProxyError):
            return RequestFailedError(f"{host}: the proxy is no help: {_said(causes[-1])}", host)
        if first(http.client.IncompleteRead, urllib3.exceptions.IncompleteRead, urllib3.exceptions.DecodeError):
            return RequestFailedError(f"{host}: the answer breaks off (IncompleteRead)", host, too_much=True)
        if first(http.client.HTTPException, ConnectionError):
            return RequestFailedError(f"{host}: Connection aborted, {_said(causes[-1])}", host, too_much=True)
        lasting = isinstance(error, ValueError)  # no valid URL
        return RequestFailedError(f"{host}: {_said(causes[-1])}", host, passing=not lasting)


#: What an HTTP library raises where no answer comes, or not all of it, or the URL is none.
_NO_ANSWER = (OSError, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError, EOFError, zlib.error)


def _within(seconds: float, host: str, do: Callable[..., bytes], *words: Any) -> bytes:
    """What a function returns or raises, within some time. A socket's own limit is for one silence: a server that sends
    a byte now and then, of a head or a body, would be listened to for ever. The thread of one that is given up ends
    with the process at the latest."""
    done: Queue[tuple[bytes, BaseException | None]] = Queue()

    def call() -> None:
        try:
            done.put((do(*words), None))
        except BaseException as error:
            done.put((b"", error))

    threading.Thread(target=call, name="request", daemon=True).start()
    try:
        data, error = done.get(timeout=seconds)
    except Empty:
        why = f"{host}: its answer is not complete after {seconds:g} s"
        raise RequestFailedError(why, host, passing=False, too_much=True) from None
    if error is not None:
        raise error
    return data


class Waiting:
    """What is waited for while the block lasts; said as a warning once it has taken long."""

    def __init__(self) -> None:
        self.host, self.why = "", "no answer yet"
        self._timer = threading.Timer(_SAY_AFTER_S, self._say)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._timer.cancel()

    def paused(self, state: RetryCallState) -> None:
        """A try has failed, and a pause begins."""
        pause = state.next_action.sleep if state.next_action else 0.0
        self.why = f"{one_line(state.outcome.exception() if state.outcome else '')}; asked again after {pause:.1f} s"
        log.debug("%s: %s", self.host, self.why)

    def _say(self) -> None:
        log.warning(
            "waiting for %s for %.0f s (%s); a request is given up after about %.0f s",
            self.host,
            _SAY_AFTER_S,
            self.why,
            _PATIENCE_S,
        )


def _pause(state: RetryCallState) -> float:
    """How long to wait before the next try: longer each time, and as long as the server asks for."""
    usual = wait_exponential(multiplier=_FIRST_PAUSE_S, max=8) + wait_random(0, _FIRST_PAUSE_S)
    error = state.outcome.exception() if state.outcome else None
    return max(usual(state), getattr(error, "pause_s", 0.0))


def pause_asked_for(headers: Mapping[str, str]) -> float:
    """The seconds that a busy server asks for by Retry-After (in seconds, or until a date), within reason; else 0."""
    text = str(headers.get("Retry-After") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0.0
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_PAUSE_S) if math.isfinite(seconds) else 0.0


def _redirected(href: str, onward: str) -> str:
    """Where a redirect leads. Raises RequestFailedError unless that is a server, and no way into this machine."""
    host = host_of(href)
    try:
        target = located(onward, href)
    except ValueError as error:
        raise RequestFailedError(
            f"{host} redirects to {bare_href(onward)!r}, which {error}", host, passing=False
        ) from None
    if not target.startswith(("http://", "https://")):
        why = f"{host} redirects to {bare_href(target)}: only http(s) is followed"
        raise RequestFailedError(why, host, passing=False)
    if is_loopback(target) and not is_loopback(href):
        why = f"{host} redirects to {host_of(target)}, which is this machine: not followed"
        raise RequestFailedError(why, host, passing=False)
    return target


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what is behind it, the outermost first."""
    seen: list[BaseException] = []
    below: object = error
    while isinstance(below, BaseException) and below not in seen:
        seen.append(below)
        yield below
        inner = next((arg for arg in below.args if isinstance(arg, BaseException)), None)
        reason = getattr(below, "reason", None)
        below = reason if isinstance(reason, BaseException) else inner or below.__cause__ or below.__context__


def _said(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or one_line(error) or type(error).__name__)


def _in_brackets(text: object) -> str:
    return f" ({text})" if text else ""
