"""Fixtures of the conformance tests: the published numbers, their tolerances, and one thread.

The numbers live outside the repository, in `shared/conformance` beside the checkout; without them these tests skip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from published_numbers import PLACE, Conformance


@pytest.fixture(scope="session")
def conformance() -> Conformance:
    """`conformance("02_degradation_encoder")` → its `Fixture`; skips without the numbers."""
    if not (PLACE / "manifest.json").is_file():
        pytest.skip(f"the published numbers are not at {PLACE}")
    return Conformance()


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's interpreter a program takes as long whatever its size."""
    if "TRITON_INTERPRET" in os.environ:
        from difffusr.kernels.networks.fused import triton_forms

        monkeypatch.setattr(triton_forms, "_TILE", 1 << 14)
        monkeypatch.setattr(triton_forms, "_strip", lambda height, width: (64, 64))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums come out in one order, and the tests leave the other cores alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
