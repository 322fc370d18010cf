"""Numbers are written as people read them, and none looks like another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from difffusr.pipeline.ground.words import (
    ago_words,
    careful_share_words,
    counted,
    share_words,
    size_words,
    span_words,
)


def test_one_is_singular() -> None:
    assert [counted(number, "chip") for number in (0, 1, 1200)] == ["0 chips", "1 chip", "1,200 chips"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(532, "532 Bytes"), (1_234, "1.2 kB"), (999_960, "1.0 MB"), (1.4e9, "1.4 GB"), (2.5e12, "2.5 TB")],
)
def test_sizes_are_in_decimal_units(count: float, words: str) -> None:
    assert size_words(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(12, "12 s"), (740, "12.3 min"), (8000, "2.2 h"), (9e6, "2,500.0 h")])
def test_spans_are_in_the_largest_unit_that_fits(seconds: float, words: str) -> None:
    assert span_words(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(-3, "now"), (12, "12 seconds ago"), (4000, "an hour ago")])
def test_moments_are_told_by_how_long_ago(seconds: float, words: str) -> None:
    assert ago_words(seconds) == words


def test_shares_are_per_cent() -> None:
    assert share_words(1 / 3) == "33.3 %"


@given(st.floats(0, 1))
def test_a_careful_share_is_0_or_1_only_where_it_says_so(share: float) -> None:
    words = careful_share_words(share)
    assert (words == "0 %") == (share == 0)
    assert (words == "100 %") == (share == 1)
    assert words not in ("0.0 %", "100.0 %")
