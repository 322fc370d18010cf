"""The batch of a run with GPUs: tried out once, remembered, the same for whoever resumes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray import cloudpickle

from difffusr.pipeline.chips.batch import Batch
from difffusr.pipeline.chips.batch_size import ActorKind, remembered_batch
from difffusr.pipeline.chips.resolver import PinnedResolver
from difffusr.pipeline.engine.board import start_board
from difffusr.pipeline.storage.objects import Storage

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Limited(PinnedResolver):
    """Has room for five chips; a batch takes as long whatever its size. A file counts the batches that were tried."""

    tried: str = ""

    def super_resolve(self, batch: Batch, chosen: list[int]) -> Batch:
        with Path(self.tried).open("a") as file:
            file.write(f"{len(chosen)} ")
        if len(chosen) > 5:
            raise torch.OutOfMemoryError("out of memory")
        time.sleep(0.05)
        return {"dn": np.zeros((len(chosen), 12, 8, 8), np.uint16)}


@pytest.mark.slow  # how a size is chosen and remembered is shown without Ray in tests/pipeline/chips
@pytest.mark.usefixtures("_ray")
def test_the_largest_batch_that_fits_is_found_once_and_remembered(loaded, tmp_path):
    config, staging, board = loaded(), Storage(str(tmp_path / "staging")), start_board()
    tried = tmp_path / "tried"
    limited = type("Limited", (Limited,), {"tried": str(tried)})

    def found(**sections: Any) -> int:
        return remembered_batch(loaded(**sections), "f" * 64, ActorKind(limited, board, staging, 0.0))

    assert found() == 4
    assert tried.read_text() == "1 1 2 2 4 4 8 "
    (name,) = staging.names("batch")
    assert name == "ffffffffffffffff_96px_0samples_cpu_0.json"
    assert list(json.loads(staging.read(f"batch/{name}"))["chips_per_s"]) == ["1", "2", "4"]
    assert found() == 4
    assert tried.read_text() == "1 1 2 2 4 4 8 "  # not tried again
    assert found(grid={"chip_px": 48, "overlap_px": 12}) == 4
    assert len(staging.names("batch")) == 2  # another chip size has a batch of its own
    assert config.compute.batch == "auto"
