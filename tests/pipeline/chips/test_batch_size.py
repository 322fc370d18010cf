"""The batch of a run: one on cores, what the configuration says, or the largest that fits and pays."""

from __future__ import annotations

import pytest

from difffusr.pipeline.chips.batch_size import ActorKind, largest_batch, with_batch
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.storage.objects import Storage


def test_without_a_gpu_it_is_one_and_a_number_that_is_given_stays(loaded, tmp_path):
    on_cores = ActorKind(PinnedResolver, None, Storage(str(tmp_path)), 0.0)
    assert with_batch(loaded(), "f", on_cores).compute.batch == 1
    assert with_batch(loaded(compute={"batch": 3}), "f", on_cores._replace(gpus=1.0)).compute.batch == 3


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
