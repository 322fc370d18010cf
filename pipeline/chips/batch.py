"""A batch of chips on its way through the steps, and what is to be done with each of its chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Rows of a batch, as Ray Data hands them over: column name → stacked arrays, one entry a chip.
Batch = dict[str, NDArray[Any]]

#: A chip's `fate` once it has been at the models: to stage, already staged, not started.
TO_STAGE, STAGED, LEFT = 0, 1, 2


def stacked(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Rows of the same columns as one batch."""
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
