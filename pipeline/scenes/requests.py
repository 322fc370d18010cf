"""HTTP requests for STAC documents, repeated while an error may be temporary.

urllib3's retries do not fit: they are over when requests reads the body, so a document that stalls or breaks off would
not be asked for again. They also have no pause before the second try, and no time limit for all tries together.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_exponential,
    wait_random,
)
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from difffusr.pipeline.ground.urls import one_line

log = logging.getLogger("difffusr.catalog")

T = TypeVar("T")

#: Seconds without a byte after which a request is given up: for a document, and for a search, which takes longer.
DOCUMENT_S, SEARCH_S = 20.0, 45.0

#: How often a request is tried while an error may be temporary; the first pause (then twice as long each time, plus up
#: to one more first pause at random); when no further try begins; the longest pause that a server may ask for.
_ATTEMPTS, _FIRST_PAUSE_S, _PATIENCE_S, _LONGEST_PAUSE_S = 4, 0.5, 60.0, 30.0


class PatientIO(StacApiIO):
    """Requests of a STAC client, repeated with growing pauses when the server is away, busy, broken or silent."""

    def __init__(self, silence_s: float) -> None:
        # urllib3's retries would multiply with those here.
        super().__init__(timeout=(10, silence_s), max_retries=None)
        self.session.hooks["response"].append(_pause_as_told)

    def request(self, *args: Any, **kwargs: Any) -> str:
        return str(self._patiently(super().request, *args, **kwargs))

    def fetch(self, href: str) -> bytes:
        """The bytes at a URL. Raises APIError."""
        return bytes(self._patiently(self._get, href))

    def _get(self, href: str) -> bytes:
        try:
            response = self.session.get(href, timeout=self.timeout)
        except OSError as error:
            raise APIError(str(error)) from None
        if not response.ok:
            raise APIError.from_response(response)
        return bytes(response.content)

    def _patiently(self, request: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(_ATTEMPTS) | stop_before_delay(_PATIENCE_S),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=8) + wait_random(0, _FIRST_PAUSE_S),
            before_sleep=before_sleep_log(log, logging.DEBUG),
            reraise=True,
        )
        return attempts(request, *args, **kwargs)


def _pause_as_told(response: Any, **_: Any) -> None:
    """Wait as long as a busy server asks for (in seconds, or until a date), within reason."""
    if response.status_code in (429, 503):
        with suppress(InvalidHeader):
            time.sleep(min(Retry().get_retry_after(response) or 0.0, _LONGEST_PAUSE_S))


#: The essence of what the HTTP library says of a request without an answer.
_WHY = re.compile(
    r"(?:\[Errno -?\d+\] |Failed to resolve |Connection aborted|Connection broken|IncompleteRead"
    r"|certificate verify failed|Read timed out|Connection to \S+ timed out)[^\"'\n)]*\)?"
)


def no_answer(error: APIError) -> str:
    """Why a request got no answer, in a few words."""
    found = _WHY.search(one_line(error, 1000))
    return found[0] if found else one_line(error)


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: no answer, or one that says busy or broken."""
    if not isinstance(error, APIError):
        return False
    status = getattr(error, "status_code", None)
    return status in (None, 408, 429, 500, 502, 503, 504)
