"""Masks that grow, or that are the item's own probability, hardly make planning slower."""

from __future__ import annotations

import pytest
from full_tile import full_tile
from masks_f1 import seconds_of_plans
from planned_areas import OVERVIEWS

#: What a plan may take with masks, of what it takes without.
LIMIT = 1.5


@pytest.mark.bench
@pytest.mark.skipif(not OVERVIEWS.exists(), reason=f"no real scenes: {OVERVIEWS.parent} is not there")
def test_a_plan_with_masks_takes_hardly_longer(tmp_path, capsys):
    rows = seconds_of_plans(tmp_path / "plan", full_tile(tmp_path), network=False)
    with capsys.disabled():
        print("", *rows, sep="\n")
    assert max(row["of scl"] for row in rows) <= LIMIT
