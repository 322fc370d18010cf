"""Keys of chunks: every revision has its own, and none is taken for another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cubes import EPSG, WINDOW, month

from difffusr.pipeline.cube.layout import ENCODINGS, Zone, chunk_index, chunk_key

INDICES = st.lists(st.integers(0, 10_000), min_size=3, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("revision", "key"), [(0, "c/1/0/2"), (1, "1/0/2"), (2, "c.1.0.2"), (3, "1.0.2"), (4, "c/1/0/2")]
)
def test_four_revisions_have_keys_of_their_own(revision, key):
    assert chunk_key(revision, (1, 0, 2)) == key


@given(INDICES, st.integers(0, 7), st.integers(0, 7))
def test_a_key_leads_back_to_its_chunk_in_its_own_revision_alone(index, revision, other):
    key = chunk_key(revision, index)
    assert chunk_index(revision, key) == index
    if (other - revision) % len(ENCODINGS):
        assert chunk_index(other, key) is None


@pytest.mark.parametrize(("seen", "revised", "written"), [((), False, True), ((0,), False, False), ((0,), True, True)])
def test_a_period_that_readers_see_is_written_again_in_a_new_revision_alone(seen, revised, written):
    lineage = (0, 1) if revised else (0,)
    zone = Zone(EPSG, WINDOW, (month(1),), 0, lineage=lineage, seen=seen, revised=revised)
    assert zone.is_written == written
