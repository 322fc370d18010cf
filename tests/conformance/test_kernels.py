"""The fused networks as GPU kernels, in Triton's interpreter, compute what the published system computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from interpreted import needs_triton, run_interpreted

if TYPE_CHECKING:
    from published_numbers import Conformance

HERE = Path(__file__).parent


@needs_triton
def test_the_diffusion_network_and_the_context_encoder(conformance: Conformance) -> None:
    run_interpreted(HERE / "test_stage1.py", "-k", "fused and (05_unet_A or encoder)")


@needs_triton
@pytest.mark.slow
def test_all(conformance: Conformance) -> None:
    run_interpreted(HERE / "test_stage1.py", HERE / "test_fusion.py", "-k", "fused and not size")
