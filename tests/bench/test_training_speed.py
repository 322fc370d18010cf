"""A batch drawn as tensors costs no CPU more than its samples drawn one by one. `make bench-guards` runs it."""

from __future__ import annotations

import pytest
import training_speed


@pytest.mark.bench
def test_batches_as_tensors_are_no_slower(capsys):
    rows = [row for threads in (1, 2) for row in training_speed.measure(threads)]
    training_speed.write(rows)
    with capsys.disabled():
        for row in rows:
            print(f"\n{row['batch']:8} {row['threads']} thread(s): {row['ratio']:.2f} times as fast", end="")
    assert all(row["ratio"] > 1 for row in rows), rows
