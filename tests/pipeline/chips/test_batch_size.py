"""The batch of a run: one on cores, what the configuration says, or the largest that fits and pays."""

from __future__ import annotations

import pytest

from difffusr.pipeline.chips.batch_size import ActorKind, largest_batch, with_batch
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.storage.objects import Storage


@pytest.mark.parametrize(
    ("compute", "gpus", "batch", "idle"),
    [
        ({}, 0.0, 1, 0),
        ({"cpus_per_actor": 4}, 0.0, 4, 0),
        ({"cpus_per_actor": 4, "batch": 1}, 0.0, 1, 3),
        ({"cpus_per_actor": 2, "batch": 3}, 0.0, 3, 0),
        ({"batch": 3}, 1.0, 3, 0),
        ({"cpus_per_actor": 4, "batch": 1}, 1.0, 1, 0),
    ],
)
def test_on_cores_it_is_one_chip_a_core_and_a_number_that_is_given_stays(
    loaded, tmp_path, caplog, compute, gpus, batch, idle
):
    kind = ActorKind(PinnedResolver, None, Storage(str(tmp_path)), gpus)
    assert with_batch(loaded(compute=compute), "f", kind).compute.batch == batch
    assert [f"leaves {idle} cores of each actor idle" in said for said in caplog.messages] == [True] * (idle > 0)


@pytest.mark.parametrize(
    ("rates", "batch"),
    [
        ({1: 10, 2: 18, 4: 30, 8: 31}, 4),  # eight give hardly more
        ({1: 10, 2: 10.2}, 1),
        ({1: 10, 2: 11}, 2),
        ({}, 1),
    ],
)
def test_a_batch_is_doubled_as_long_as_it_fits_and_pays(rates, batch):
    assert largest_batch(rates.get)[0] == batch
