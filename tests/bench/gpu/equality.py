"""Fused and plain networks on one device: equal but for rounding; the same bits whenever they must be the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import model_speed
import torch
from model_speed import Case
from torch import Tensor

from difffusr.kernels.networks.fused import operations
from gpu.parts import Row, Setting, no_time, tried
from gpu.subject import device_of, maker

#: The largest difference of fused and plain in reflectance, float32; what ships must agree within 2 DN.
FLOAT32 = {"published": 1e-3, "small": 2e-4}

#: The mean difference in bfloat16, whose rounding is not the same in both.
BFLOAT16_MEAN = 2e-3

#: Networks, preset, precision, side, chips at a time.
CASES: tuple[tuple[str, str, model_speed.Precision, int, int], ...] = (
    ("published", "reference", "bfloat16", 144, 8),
    ("small", "reference", "float32", 144, 4),
    ("published", "reference", "float32", 144, 2),
    ("small", "reference", "bfloat16", 144, 8),
    ("published", "fast", "bfloat16", 192, 8),
    ("published", "fast", "float32", 192, 2),
    ("small", "fast", "float32", 192, 4),
    ("small", "fast", "bfloat16", 192, 8),
    ("published", "draft", "bfloat16", 144, 4),
)

#: Those of a dry run: in Triton's interpreter a network takes minutes, so only the kernels go through it one by one.
DRY_CASES: tuple[tuple[str, str, model_speed.Precision, int, int], ...] = (
    ("published", "fast", "float32", 12, 2),
    ("published", "draft", "bfloat16", 12, 2),
    ("small", "draft", "float32", 12, 2),
)

#: Images (B, H, W, C) that kernels are compared on; then that of a dry run.
SHAPES = ((2, 37, 41, 64), (3, 50, 150, 24), (1, 288, 288, 128))
DRY_SHAPES = ((1, 3, 5, 8),)


def rows(setting: Setting) -> Iterator[Row]:
    """The ground's noise, each kernel beside its form in PyTorch, then a row for each case: how fused differs from
    plain, and which bits are the same."""
    if setting.dry:
        _few_programs()
    device = device_of(setting)
    windows = [((7, 32632, -2119680, 160, 5, 9), 0)] if setting.dry else [
        (window, stream) for window in model_speed.WINDOWS for stream in (0, 3)
    ]  # fmt: skip
    for window, stream in windows:
        what = f"ground noise, zone {window[1]}, stream {stream}"
        yield tried(what, partial(noise, what, device, window, stream))
    for shape in DRY_SHAPES if setting.dry else SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            yield from kernels(shape, dtype, device)
    if setting.dry:
        operations._has_triton = lambda x: False  # type: ignore[assignment]
    networks = maker(setting)()
    for models, preset, precision, side, batch in DRY_CASES if setting.dry else CASES:
        case = model_speed.case_of(models, preset, precision, "fused", batch, side)
        what = _label(case)
        yield tried(what, partial(compared, case, device, networks)) if setting.has(15) else no_time(what)
        model_speed.free(device)


def noise(what: str, device: torch.device, window: tuple[int, int, int, int, int, int], stream: int) -> Row:
    """The ground's noise on the device and on the CPU."""
    found = model_speed.same_noise(device, window, stream)
    return {
        "what": what, "difference_max": found["difference_max"], "allowed": "0",
        "note": f"{found['seconds'] * 1e3:.2f} ms", "ok": not found["differ"],
    }  # fmt: skip


def kernels(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Iterator[Row]:
    """A row for each kernel: the largest difference from its form in PyTorch, as a share of the largest value."""
    from difffusr.kernels.networks.fused import triton_forms

    generator = torch.Generator().manual_seed(0)

    def random(*size: int, of: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size, generator=generator).to(device, of)

    B, H, W, C = shape
    image, other, third, conv = (random(*shape, of=dtype) for _ in range(4))
    narrow, bias = random(B, H, W, 8, of=dtype), random(C, of=dtype)
    wide = random(B, (H + 1) // 2 + 1, (W + 1) // 2 + 1, 4 * C, of=dtype)
    weight, before = (random(9, 8, C) / 8).to(dtype), random(8, of=dtype)
    shift, per_chip, taps = random(1, C), random(B, 9, C), random(1, 9, C)
    coefficients = random(B, 2, C)
    parts = triton_forms.moment_parts(H, W), triton_forms.depthwise_parts(H, W)
    # by name: the arguments after what is written, and what is written
    made: dict[str, tuple[Any, Any]] = {
        "combine": (
            ([image, other], bias, [third], 0.2, 0.2, False),
            lambda: [torch.empty_like(image), torch.empty_like(image), None],
        ),
        "combine, unfolding": (
            ([wide], bias, [], 1.0, 1.0, True),
            lambda: [torch.empty_like(image), None, torch.empty(B, parts[0], 2, C, device=device)],
        ),
        "convolve": (
            (narrow, before, weight, image, bias, [other], 0.2, 0.1, 0.2),
            lambda: [torch.empty_like(image), torch.empty_like(image), torch.empty_like(narrow)],
        ),
        "depthwise": (
            (image, shift, per_chip, taps, [other, third], 0.1),
            lambda: [conv.clone(), torch.empty(B, parts[1], 2, C, device=device)],
        ),
        "normalise": (([image], coefficients, True), lambda: [torch.empty_like(image)]),
    }  # fmt: skip
    for name, (given, outputs) in made.items():
        what = f"kernel {name}, {' × '.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
        yield tried(what, partial(_both_forms, what, name.partition(",")[0], given, outputs, dtype))


def _both_forms(what: str, name: str, given: Any, outputs: Any, dtype: torch.dtype) -> Row:
    """The row of a kernel, from its arguments and what makes the tensors that it writes."""
    from difffusr.kernels.networks.fused import triton_forms

    written = []
    for function in (getattr(triton_forms, name), getattr(operations, f"{name}_plain")):
        outs = outputs()
        function(*outs, *given)
        written.append([_whole(out) for out in outs if out is not None])
    found = max(_relative(*pair) for pair in zip(*written, strict=True))
    limit = 2**-6 if dtype == torch.bfloat16 else 1e-5
    return {"what": what, "difference_max": found, "allowed": f"{limit:.2g} of the largest", "ok": found <= limit}


def _whole(out: Tensor) -> Tensor:
    """An image as it is; moments (B, parts, 2, C) as one sum: how many parts there are is the form's own."""
    return out.sum(1) if out.shape[2] == 2 else out


def _relative(got: Tensor, expected: Tensor) -> float:
    got, expected = got.double(), expected.double()
    return float((got - expected).abs().max() / expected.abs().max())


def compared(case: Case, device: torch.device, networks: Any) -> Row:
    """A row: fused against plain, and against itself: again, made anew, and with other chips around."""
    given = model_speed.chips(case.batch, case.side, device)
    plain = model_speed.model_of(replace(case, execution="eager"), device, networks)(*given)
    model = model_speed.model_of(case, device, networks)
    out = model(*given)
    again = model(*given)
    others = model(*filled_with(given, 1))
    anew = model_speed.model_of(case, device, networks)(*given)
    difference = (out - plain).abs()
    lowered = case.sampling.precision == "bfloat16"
    found, limit = (float(difference.mean()), BFLOAT16_MEAN) if lowered else (
        float(difference.max()), FLOAT32["small" if case.models == "small" else "published"]
    )  # fmt: skip
    bits = {
        "same_bits_twice": torch.equal(out, again),
        "same_bits_made_anew": torch.equal(out, anew),
        "same_bits_in_any_fill": all(torch.equal(row, out[1]) for row in others),
    }
    return {
        "what": _label(case), "difference_max": float(difference.max()), "difference_mean": float(difference.mean()),
        "allowed": f"{'mean' if lowered else 'max'} {limit:g}", **bits, "ok": found <= limit and all(bits.values()),
    }  # fmt: skip


def filled_with(given: Any, which: int) -> Any:
    """A batch of one of its chips alone, as often as it has chips: what a partial batch is filled up with."""
    if isinstance(given, Tensor):
        return given[which : which + 1].expand(given.shape).contiguous()
    if isinstance(given, dict):
        return {name: filled_with(x, which) for name, x in given.items()}
    return tuple(filled_with(x, which) for x in given)


def _label(case: Case) -> str:
    return f"{case.models} {case.preset} {case.sampling.precision} {case.side} px batch {case.batch}"


def _few_programs() -> None:
    """Let kernels be few large programs: in Triton's interpreter size costs nothing."""
    from difffusr.kernels.networks.fused import triton_forms

    triton_forms._TILE = 1 << 14
    triton_forms._strip = lambda height, width: (64, 64)
