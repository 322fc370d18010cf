"""The fused operations' kernels: right in the interpreter, compilable for a GPU, and as operators without values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from interpreted import needs_triton, run_interpreted

from difffusr.kernels.networks.fused import operations


@needs_triton
def test_every_kernel_computes_what_its_plain_form_does():
    run_interpreted(Path(__file__).with_name("kernels_interpreted.py"))


SUMS = {"ALSO": False, "BIAS": True, "MOMENTS": True, "FAR": False, "BR": 32, "BC": 64}
SMALL = {"GIVEN": True, "WIDEN": False, "FAR": False, "UNROLLED": True}
LOOPED = {"GIVEN": True, "WIDEN": False, "FAR": False, "UNROLLED": False, "BK": 16}
FLOATS = {"partials", "affine", "p1", "p2", "shift", "kernels", "taps"}
CHANNELS = {"C", "C1", "C2", "K", "N", "stride_shift", "stride_taps"}
SIZES = CHANNELS | {"H", "W", "across", "width", "source_width", "pixels", "source_pixels", "rows", "blocks1"} | {
    "parts1", "parts2", "count"
}  # fmt: skip
NUMBERS = {"slope", "slope_before", "scale", "eps"}


#: Lines of a kernel's code: that of twenty times as many takes half a minute to compile.
MOST_LINES = 6000


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("_combine", {**SUMS, "SOURCES": 1, "RESIDUALS": 1, "UNFOLD": False}),
        ("_combine", {**SUMS, "SOURCES": 1, "RESIDUALS": 0, "UNFOLD": True}),
        ("_convolve", {**SMALL, "RESIDUALS": 0, "ALSO": False, "BEFORE": True, "BM": 128, "BK": 16, "BN": 16}),
        ("_convolve", {**SMALL, "RESIDUALS": 2, "ALSO": True, "BEFORE": False, "BM": 64, "BK": 64, "BN": 64}),
        ("_convolve", {**LOOPED, "RESIDUALS": 0, "ALSO": False, "BEFORE": True, "BM": 128, "BN": 16}),
        ("_convolve", {**LOOPED, "RESIDUALS": 2, "ALSO": True, "BEFORE": False, "BM": 64, "BN": 64}),
        ("_depthwise", {"RESIDUALS": 2, "FAR": False, "ROWS": 16, "BX": 16, "BC": 32}),
        ("_affine", {"SOURCES": 2, "PER_GROUP": 6, "BN": 64, "BC": 8}),
        ("_normalise", {"SWISH": True, "FAR": False, "BR": 32, "BC": 64}),
        ("_combine", {**SUMS, "SOURCES": 1, "RESIDUALS": 0, "UNFOLD": True, "FAR": True}),
        ("_convolve", {**SMALL, "RESIDUALS": 0, "ALSO": 0, "BEFORE": True, "FAR": True, "BM": 128, "BK": 16, "BN": 16}),
        ("_depthwise", {"RESIDUALS": 2, "FAR": True, "ROWS": 16, "BX": 16, "BC": 32}),
        ("_normalise", {"SWISH": True, "FAR": True, "BR": 32, "BC": 64}),
    ],
)
def test_every_kernel_compiles_for_a_gpu_that_is_not_there(name: str, constants: dict[str, Any], dtype: str) -> None:
    """The interpreter takes what the compiler refuses. Loads are of 16 bytes: less would waste the memory's rate."""
    if name == "_convolve" and constants["UNROLLED"] is (dtype == "fp32"):
        pytest.skip("only bfloat16 is unrolled")
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from difffusr.kernels.networks.fused import triton_forms

    kernel = getattr(triton_forms, name)
    floats = FLOATS | ({"out"} if name == "_affine" else set())
    signature: dict[str, str] = {}
    aligned: dict[tuple[int], Any] = {}
    for at, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in NUMBERS:
            signature[argument] = "fp32"
        elif argument in SIZES or argument.startswith("pitch"):
            signature[argument] = "i32"
        else:
            signature[argument] = "*fp32" if argument in floats else f"*{dtype}"
        if signature[argument].startswith("*") or argument in CHANNELS or argument.startswith("pitch"):
            aligned[(at,)] = [["tt.divisibility", 16]]
    values = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=values, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert name == "_affine" or "ld.global.v4" in made.asm["ptx"] or "cp.async.cg" in made.asm["ptx"]  # both 16 bytes
    assert len(made.asm["ptx"].splitlines()) < MOST_LINES


@pytest.mark.parametrize("unfold", [None, (5, 4)])
def test_operators_know_their_shapes_without_values(unfold):
    x = torch.empty(2, 4, 3, 16, device="meta", dtype=torch.bfloat16)
    features = operations.with_moments(x, unfold=unfold)
    assert features.x.shape == ((2, 4, 3, 16) if unfold is None else (2, 5, 4, 4))
    channels = features.x.shape[-1]
    weight = torch.empty(2 * channels, device="meta")
    both = operations.normalised([features, features], 4, weight, weight, 1e-5, swish=True, dtype=torch.float32)
    assert (both.shape, both.dtype) == ((*features.x.shape[:3], 2 * channels), torch.float32)
