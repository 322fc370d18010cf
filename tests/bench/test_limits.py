"""Reading, staging and assembly against the speed of their libraries; `make bench` keeps the figures."""

from __future__ import annotations

import limits
import pytest

#: What work may take, in its limit's seconds. Zarr writes what is blended, too: assembly keeps 70 % of its speed.
MOST = {
    "reading": 1.5,
    "reading, clouds filled from a second scene": 1.5,
    "staging": 1.5,
    "reading what is staged": 1.5,
    "assembly": 1 / 0.7,
    "overview": 1.8,
}


@pytest.mark.bench
def test_reading_staging_and_assembly_are_near_their_limits(tmp_path, capsys):
    rows = limits.measure(tmp_path)
    with capsys.disabled():
        print(f"\n{'MB/s of a core':44}{'here':>8}{'alone':>8}{'ratio':>7}")
        for row in rows:
            print(f"{row['what']:44}{row['mb_per_s']:8.0f}{row['limit_mb_per_s']:8.0f}{row['ratio']:7.2f}")
    found = {row["what"]: row["ratio"] for row in rows}
    assert {what: ratio for what, ratio in found.items() if ratio > MOST.get(what, float("inf"))} == {}
    assert set(MOST) <= set(found)
