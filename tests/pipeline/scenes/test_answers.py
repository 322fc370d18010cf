"""Answers are decoded in parts and within bounds, however they are compressed, cut into pieces, or meant to explode."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zlib

import pytest

from difffusr.pipeline.scenes import answers
from difffusr.pipeline.scenes.answers import UnreadableAnswerError, json_of, parts_of

DATA = json.dumps({"features": list(range(3000))}).encode()


class Arriving:
    """A body that arrives in pieces."""

    def __init__(self, body: bytes, piece: int) -> None:
        self._body, self._piece = io.BytesIO(body), piece

    def read1(self, amount: int, *, decode_content: bool) -> bytes:
        assert not decode_content
        return self._body.read(min(amount, self._piece))


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def bomb(megabytes: int, wbits: int) -> bytes:
    stream = zlib.compressobj(9, wbits=wbits)
    return b"".join(stream.compress(b"\0" * (1 << 20)) for _ in range(megabytes)) + stream.flush()


BODIES = {
    "plain": ("", DATA),
    "identity": ("identity", DATA),
    "gzip": ("gzip", gzip.compress(DATA)),
    "x-gzip": ("X-GZIP", gzip.compress(DATA)),
    "two members": ("gzip", gzip.compress(DATA[:999]) + gzip.compress(DATA[999:])),
    "zeros behind": ("gzip", gzip.compress(DATA) + bytes(70_000)),
    "zlib": ("deflate", zlib.compress(DATA)),
    "bare deflate": ("deflate", bare(DATA)),
}


@pytest.mark.parametrize("piece", [1, 2, 7, 1000, 1 << 20])
@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_decoded_in_whatever_pieces_it_comes(body, piece):
    encoding, encoded = BODIES[body]
    assert b"".join(parts_of(Arriving(encoded, piece), encoding)) == DATA


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_no_body_is_no_body(encoding):
    assert b"".join(parts_of(Arriving(b"", 10), encoding)) == b""


@pytest.mark.parametrize("left", [1, 2, 11, 500, -9, -1])
@pytest.mark.parametrize("body", ["gzip", "zlib", "bare deflate"])
def test_a_body_that_breaks_off_is_an_error(body, left):
    encoding, encoded = BODIES[body]
    with pytest.raises((EOFError, zlib.error)):
        list(parts_of(Arriving(encoded[:left], 100), encoding))


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip,br", "x" * 500])
def test_what_was_not_asked_for_is_refused(encoding):
    with pytest.raises(UnreadableAnswerError, match="asked for gzip, deflate") as caught:
        list(parts_of(Arriving(DATA, 100), encoding))
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", bomb(64, 31)),
        ("deflate", bomb(64, 15)),
        ("deflate", bomb(64, -15)),
        ("gzip", gzip.compress(bytes(1 << 20)) * 64),
        ("", bytes(64 << 20)),
    ],
)
def test_a_bomb_is_read_no_further_than_the_bound_and_never_at_once(encoding, encoded, monkeypatch):
    monkeypatch.setattr(answers, "LARGEST_ANSWER", 8 << 20)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableAnswerError, match="more than 8 MB"):
            sizes.extend(map(len, parts_of(Arriving(encoded, 1 << 16), encoding)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(sizes) <= 8 << 20
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "text", [b"[[],[],[],[],[],[]]", b"[1,2,3,4,5,6,7,8]", b'{"a":{"b":{"c":{"d":{"e":1,"f":2}}}}}']
)
def test_a_document_of_too_many_values_is_not_parsed(text, monkeypatch):
    monkeypatch.setattr(answers, "MOST_VALUES", 5)
    with pytest.raises(ValueError, match="at most 5 are read"):
        json_of(text)


def test_ten_thousand_items_are_within_the_bounds():
    # As Earth Search writes them: 28 kB and a thousand values each.
    assert answers.LARGEST_ANSWER > 10_000 * 28_000
    assert answers.MOST_VALUES > 10_000 * 1_000
