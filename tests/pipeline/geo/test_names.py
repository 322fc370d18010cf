"""Names of chips and shards: resuming finds what is done by them, so that they are the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difffusr.pipeline.assemble.overviews import overview_name
from difffusr.pipeline.geo.grid import ChipIndex, Grid, OverviewIndex, ShardIndex
from difffusr.pipeline.geo.names import PlaceName, place_names, staged_names
from difffusr.pipeline.plan.tables import ChipPlan, Chips, ShardPlan, Shards

ROWS = st.integers(-4_000_000, 4_000_000)
PLACES = st.builds(PlaceName, st.integers(32601, 32760), ROWS, ROWS, st.none() | st.integers(1, 20))
KEYS = st.binary(min_size=32, max_size=32)
KEY = bytes(range(250, 256)) + bytes(range(26))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (PlaceName(32632, -31, 2), "32632/-31_2"),
        (PlaceName(32733, 0, 0), "32733/0_0"),
        (PlaceName(32632, -3, -2, 1), "32632/1/-3_-2"),
    ],
)
def test_a_name_is_zone_row_and_column(place, name):
    assert str(place) == name
    assert PlaceName.parse(name) == place


def test_a_staged_object_is_named_by_place_and_the_first_half_and_more_of_its_key():
    name = "32632/-31_2-fafbfcfdfeff00010203.chip"
    assert PlaceName(32632, -31, 2).staged(KEY.hex()) == name
    assert PlaceName.parse_staged(name) == (PlaceName(32632, -31, 2), "fafbfcfdfeff00010203")


@given(PLACES)
def test_a_name_leads_back_to_its_place(place):
    assert PlaceName.parse(str(place)) == place


@given(PLACES, KEYS)
def test_a_staged_object_s_name_leads_back_to_place_and_key(place, key):
    assert PlaceName.parse_staged(place.staged(key.hex())) == (place, key.hex()[:20])


@given(st.lists(st.tuples(st.integers(32601, 32760), ROWS, ROWS, KEYS), max_size=6))
def test_a_column_of_names_is_the_names_of_its_rows(rows):
    epsg, row, col = (np.array([r[i] for r in rows], np.int32) for i in range(3))
    key = np.frombuffer(b"".join(r[3] for r in rows), np.uint8).reshape(-1, 32)
    places = [PlaceName(*r[:3]) for r in rows]
    assert place_names(epsg, row, col) == [str(place) for place in places]
    names = [place.staged(r[3].hex()) for place, r in zip(places, rows, strict=True)]
    assert staged_names(epsg, row, col, key) == names
    assert staged_names(epsg, row, col, key[:, :10]) == names


@pytest.mark.parametrize("text", ["", "32632", "32632/1", "32632/1_2_3", "zone/1_2", "32632/1/2/3_4", "32632/1_2-ab"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="expected zone/"):
        PlaceName.parse(text)
    with pytest.raises(ValueError, match="expected zone/"):
        PlaceName.parse_staged(text)


def test_the_plan_names_its_chips_and_shards_so():
    one = np.array([-31], np.int32)
    columns = np.array([32632], np.int32), one, np.array([2], np.int32), np.array([[0]], np.int32)
    share = np.ones(1, np.float32)
    chips = Chips(*columns, share, share, np.frombuffer(KEY, np.uint8).reshape(1, 32), ("a",))
    assert chips.object_names() == [chips[0].object_name] == ["32632/-31_2-fafbfcfdfeff00010203.chip"]
    shards = Shards.of(chips, Grid())
    assert shards.names() == [shard.name for shard in shards]
    assert ChipPlan(32632, ChipIndex(-31, 2), (), 1.0, 1.0, "").name == "32632/-31_2"
    assert ShardPlan(32632, ShardIndex(-3, 7), (), "").name == "32632/-3_7"


def test_the_ledger_names_overviews_so():
    assert overview_name(32632, OverviewIndex(2, 0, 1)) == "32632/2/0_1"
