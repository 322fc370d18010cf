"""Kinds of failure, recognised by a chip's message."""

from __future__ import annotations

import re

#: Kinds of failure, each with the pattern of its messages; the first that matches counts. Statuses come from GDAL
#: ("HTTP response code: 404"), from the catalogue's client ("HTTP 404") and from object stores ("(404)", "SlowDown").
_REASONS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (reason, re.compile(pattern, re.IGNORECASE))
    for reason, pattern in (
        # First the run's own messages about its workers: they may quote another.
        ("stall", r"\bstalled\b|no progress for"),
        ("memory", r"out of memory|OutOfMemory|MemoryError|cannot allocate|bad_alloc|memory may not be enough"),
        ("http_404", r"(HTTP( response code:| error)? |\()404\b|NoSuchKey"),
        ("http_403", r"(HTTP( response code:| error)? |\()40[13]\b|AccessDenied|InvalidAccessKeyId|requester pays"),
        ("http_429", r"(HTTP( response code:| error)? |\()429\b|too many requests|SlowDown|RequestLimitExceeded"),
        ("http_5xx", r"(HTTP( response code:| error)? |\()5\d\d\b|InternalError|ServiceUnavailable"),
        (
            "timeout",
            r"timed out|timeout|too slow|could not (connect|resolve)|failed to connect|connection (reset|refused)",
        ),
        ("missing", r"No such file or directory|does not exist in the file system"),
        ("crs", r"has CRS |has the transform |on the zone's lattice|its CRS is|Invalid projection"),
        ("damaged", r"is damaged|not recognized as being in a supported|not a TIFF|TIFFReadEncoded|IReadBlock"),
        ("store", r"cannot be (written|deleted|listed|looked up|opened as a store)|the store returns|no space left"),
        ("store", r"staged chip|/chips/.* cannot be read"),
    )
)

#: Everything that `reason_class` returns.
REASONS = (*dict.fromkeys(reason for reason, _ in _REASONS), "other")


def reason_class(message: str) -> str:
    """The kind of a chip's failure, one of `REASONS`, by its message; "other" where none matches."""
    return next((reason for reason, pattern in _REASONS if pattern.search(message)), "other")
