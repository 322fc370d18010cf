"""Reading as it is measured: how many of the planned looks are read, by the rules of the chip."""

from __future__ import annotations

import pytest

from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.run.cost.measure_reading import _Counted, measure_reading
from difffusr.pipeline.run.cost.sample import Sample


@pytest.mark.parametrize(
    ("wishes", "all_are_read"),
    [
        ({"composite": "geomedian", "looks": 2}, True),
        ({"composite": "geomedian", "looks": 8}, True),
        ({"composite": "medoid", "looks": 5}, True),
        ({"composite": "medoid", "looks": 3, "balance": "nbar"}, True),
        ({"max_scenes": 1}, True),  # there is no further one
        ({"max_scenes": 3, "fill_until": 1.0}, None),
    ],
)
def test_a_composite_reads_every_look_and_others_as_many_as_they_need(wishes, all_are_read, small_run):
    config = small_run(**wishes)
    sample = Sample.of(config, decide(config))
    if "composite" in wishes:
        assert max(len(chip.scenes) for chip in sample.chips) == wishes["looks"]
    found = measure_reading(config, sample)
    assert found.seconds > 0
    assert found.bytes > 10_000
    if all_are_read:
        assert found.further_share == 1
    else:
        assert 0 <= found.further_share <= 1


def test_scenes_gone_through_twice_count_once():
    scenes = _Counted(["a", "b", "c"])
    assert list(iter(scenes)) == list(iter(scenes)) == ["a", "b", "c"]
    assert scenes.looks == 3
    stopped = _Counted(["a", "b", "c"])
    next(iter(stopped))
    assert stopped.looks == 1
