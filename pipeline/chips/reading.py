"""The step that reads: chips of a block one by one, on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import ray

from difffusr.pipeline.chips.batch import Batch, stacked
from difffusr.pipeline.chips.table import ChipTable
from difffusr.pipeline.engine import pin_to

#: Bytes that a reader gathers before it passes them on: so few that copying them into a block does not matter.
_READ_BYTES = 32_000_000


def read_chips(batch: Batch, table: Any, board: Any) -> Iterator[Batch]:
    """Read the chips of a block one by one; none are begun once the run is asked to stop.

    Args:
        batch: `position` (n,).
        table: reference to the `ChipTable`.
        board: handle of the run's board.
    """
    chips, pin = _fetched(table), pin_to(board)
    rows: list[dict[str, Any]] = []
    size = 0
    for position in batch["position"].tolist():
        if pin.stopping():
            break
        pin.at("read", [chips.name(position)])
        row = {name: np.asarray(value) for name, value in chips.read(position).items()}
        rows.append(row)
        size += sum(column.nbytes for column in row.values())
        if size > _READ_BYTES:
            yield stacked(rows)
            rows, size = [], 0
    pin.done()
    if rows:
        yield stacked(rows)


@lru_cache(maxsize=2)  # a worker runs many tasks, each with the same table
def _fetched(table: Any) -> ChipTable:
    fetched: ChipTable = ray.get(table)
    if fetched.rules.composite != "none":
        import torch  # only composites need it

        torch.set_num_threads(1)  # a reader has one core, and its neighbours theirs
    return fetched
