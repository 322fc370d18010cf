"""The body of an HTTP answer, decoded here and within bounds: what a server compresses can be a thousand times as
large, and HTTP libraries decode a whole part before anybody can look at its size.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

#: Bytes of a decoded answer that are read at most. Ten thousand items as Earth Search writes them have 280 MB, and no
#: other document of a catalogue is as large as such a file.
LARGEST_ANSWER = 512 << 20

#: Encodings that are asked for. Others cannot be decoded in parts with a bound.
ACCEPTED = "gzip, deflate"

#: Values of a JSON document that is read at most: ten thousand items have ten million.
MOST_VALUES = 20_000_000

#: Bytes decoded at a time.
_PART = 1 << 20

#: Of zlib: a header of either kind, of gzip or its own; none.
_ANY_HEADER, _NO_HEADER = 47, -15

#: Bytes by which zlib tells whether there is a header.
_HEADER = 2


class _Raw(Protocol):
    def read1(self, amount: int, *, decode_content: bool) -> bytes: ...


class UnreadableAnswerError(ValueError):
    """An answer that is not read: too large, or encoded in a way that was not asked for. The message says which."""


def parts_of(raw: _Raw, encoding: str) -> Iterator[bytes]:
    """The decoded body in parts as they come, each of at most 1 MiB; an empty one for bytes that decode to nothing yet.

    Args:
        raw: what arrives, encoded.
        encoding: the header Content-Encoding.

    Raises:
        UnreadableAnswerError: the body is larger than `LARGEST_ANSWER`, or of an encoding that was not asked for.
        EOFError: it ends in the middle.
        zlib.error: it is not encoded as it says.
    """
    size = 0
    for part in _decoded(raw, encoding.strip().lower()):
        size += len(part)
        if size > LARGEST_ANSWER:
            raise UnreadableAnswerError(
                f"its answer has more than {LARGEST_ANSWER >> 20} MB, decoded: not read further"
            )
        yield part


def _decoded(raw: _Raw, encoding: str) -> Iterator[bytes]:
    if encoding in ("", "identity"):
        while part := raw.read1(1 << 16, decode_content=False):
            yield part
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnreadableAnswerError(f"its answer is encoded as {encoding[:40]!r}, asked for {ACCEPTED}")
    yield from _inflated(raw, encoding == "deflate")


def _inflated(raw: _Raw, maybe_bare: bool) -> Iterator[bytes]:
    """A body of one or several gzip or zlib streams; `maybe_bare`: deflate without zlib's header, as some servers send
    it."""
    stream, begun = zlib.decompressobj(_ANY_HEADER), False
    held = b""
    while data := raw.read1(1 << 16, decode_content=False):
        data = held + data
        if not begun and len(data) < _HEADER:
            held = data
            continue
        held = b""
        while True:
            if stream.eof:  # one more member follows, or zeros behind the last one
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = zlib.decompressobj(_ANY_HEADER)
            try:
                part = stream.decompress(data, _PART)
            except zlib.error:
                if begun or not maybe_bare:
                    raise
                stream = zlib.decompressobj(_NO_HEADER)
                part = stream.decompress(data, _PART)
            begun = True
            yield part
            data = stream.unused_data if stream.eof else stream.unconsumed_tail
            if not data and len(part) < _PART:
                break
    if held or (begun and not stream.eof):
        raise EOFError


def json_of(data: bytes) -> Any:
    """A JSON document, of at most `MOST_VALUES` values: ten bytes of `[[],[],` take fifty times as much memory.

    Raises:
        ValueError, RecursionError: it is no JSON, has too many values or is nested too deep.
    """
    if (values := sum(map(data.count, (b",", b"[", b"{")))) > MOST_VALUES:
        raise ValueError(f"it has {values:,} values or so, at most {MOST_VALUES:,} are read")
    return json.loads(data)
