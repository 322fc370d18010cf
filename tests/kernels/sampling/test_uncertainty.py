"""The spread of samples, streamed without holding them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difffusr.kernels.sampling.uncertainty import sample_spread


@given(count=st.integers(2, 12), seed=st.integers(0, 2**31), offset=st.floats(-10, 10), size=st.floats(1e-4, 1))
@settings(max_examples=40, deadline=None)
def test_the_streamed_spread_is_the_standard_deviation_of_the_stack(count, seed, offset, size):
    generator = torch.Generator().manual_seed(seed)
    stack = offset + size * torch.randn(count, 2, 3, 5, generator=generator, dtype=torch.float64)
    kept = stack.clone()
    first, std = sample_spread(iter(stack))
    torch.testing.assert_close(std, stack.std(dim=0, correction=1), rtol=1e-9, atol=1e-12)
    assert torch.equal(first, kept[0])
    assert torch.equal(stack, kept)


def test_float32_is_enough_for_reflectance():
    generator = torch.Generator().manual_seed(1)
    stack = 0.3 + 1e-3 * torch.randn(32, 12, 16, 16, generator=generator)
    _, std = sample_spread(stack)
    torch.testing.assert_close(std, stack.double().std(dim=0).float(), rtol=1e-3, atol=1e-7)


def test_equal_samples_have_no_spread_and_one_sample_has_none_to_tell():
    sample = torch.rand(3, 4)
    assert torch.equal(sample_spread([sample] * 5)[1], torch.zeros(3, 4))
    for too_few in ([], [sample]):
        with pytest.raises(ValueError, match=f"{len(too_few)} sample.* expected at least 2"):
            sample_spread(too_few)
