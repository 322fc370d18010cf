"""Runs tests in Triton's interpreter: GPU kernels on tensors of the CPU, in a process of its own, slowly."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")


def run_interpreted(*arguments: Path | str) -> None:
    """Run pytest with some arguments, and fail with what it says where a test fails or none is found."""
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *map(str, arguments)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
