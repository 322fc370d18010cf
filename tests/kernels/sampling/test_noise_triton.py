"""The noise kernel of GPUs computes what the tensor form computes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_the_noise_kernel_gives_the_ground_the_same_noise():
    """In Triton's interpreter: what the kernel computes is seen without a GPU."""
    program = """
import torch
from difffusr.kernels.sampling.noise import ground_noise
for seed, zone, row, col, stream in ((7, 32632, -2119680, 160, 0), ((1 << 61) + (1 << 35) + 5, 32748, 12, -40, 3)):
    kernel = ground_noise(seed, zone, row, col, 41, 53, stream=stream, kernel=True)
    assert torch.equal(kernel, ground_noise(seed, zone, row, col, 41, 53, stream=stream)), (seed, zone)
print("same")
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "same", done.stderr[-2000:]
