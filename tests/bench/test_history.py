"""What a publication costs after ten years: metadata of months in three zones of the largest size, without pixels.

`make bench-guards` runs it. Limits are ratios within the run, but for the size of the root, which every reader reads.
"""

from __future__ import annotations

import pytest
from grown_cubes import Growth, Month

from difffusr.pipeline.geo.grid import Grid, PixelWindow

#: Cubes' own shards and chunks.
GRID = Grid(96, 6, 2048, 256)

#: 400 × 800 km: ten overviews.
WINDOW = PixelWindow(-2048 * 160, 2048 * 20, 2048 * 160, 2048 * 80)

#: Months after which it is measured, each by the last three.
AFTER = (12, 36, 120)

#: The most bytes that a root may have after ten years.
ROOT = 1_000_000


@pytest.mark.bench
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["plain", "icechunk"])
def test_a_publication_costs_the_same_after_ten_years(kind, tmp_path, capsys, monkeypatch):
    growth = Growth(tmp_path, kind, zones=3, monkeypatch=monkeypatch, grid=GRID, window=WINDOW, scenes=12)
    looks = {after - back for after in AFTER for back in range(3)}
    months = [growth.month(as_reader=number in looks) for number in range(1, max(AFTER) + 1)]
    first, *_, last = found = [average(months[after - 3 : after]) for after in AFTER]
    with capsys.disabled():
        print(f"\n{kind}: months, s, requests, MB read, written, of the root, of history, requests of a reader")
        for month in found:
            print(
                f"{month.number:6d} {month.seconds:6.2f} {month.requests:8d} {month.read / 1e6:8.2f} "
                f"{month.written / 1e6:8.2f} {month.root / 1e6:8.2f} {month.history / 1e6:8.2f} {month.of_reader:6d}"
            )
    assert last.requests <= 1.5 * first.requests
    assert last.read <= 1.5 * first.read
    assert last.written <= 1.5 * first.written
    assert last.seconds <= 2 * first.seconds
    assert last.of_reader <= first.of_reader
    assert last.history <= 1.5 * first.history * last.number / first.number
    assert last.root < ROOT


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_a_run_looks_at_no_more_after_ten_years(tmp_path, capsys, monkeypatch):
    growth = Growth(tmp_path, "plain", zones=3, monkeypatch=monkeypatch, grid=GRID, window=WINDOW, scenes=12)
    found = []
    for number in range(1, 121):
        growth.month(as_reader=False)
        if number in (12, 60, 120):
            found.append((number, *growth.looked_at(), *growth.looked_at(everything=True)))
    with capsys.disabled():
        print("\nmonths, requests and MB that a run reads of documents; those of verify")
        for months, requests, read, of_all, read_of_all in found:
            print(f"{months:6d} {requests:8d} {read / 1e6:8.2f} {of_all:8d} {read_of_all / 1e6:8.2f}")
    first, *_, last = found
    assert last[1] == first[1]
    assert last[2] <= 1.25 * first[2]


def average(months: list[Month]) -> Month:
    """Of some months; the last one's number, and the least time, which others on the machine disturb least."""
    means = {name: sum(getattr(month, name) for month in months) / len(months) for name in Month._fields}
    whole = {name: value if name == "seconds" else round(value) for name, value in means.items()}
    quickest = min(month.seconds for month in months)
    return Month(**{**whole, "number": months[-1].number, "seconds": quickest})  # type: ignore[arg-type]
