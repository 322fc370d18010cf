"""Each Triton kernel computes what its form in PyTorch does; `test_kernels` runs this in the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from difffusr.kernels.networks.fused import operations, triton_forms

precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@pytest.fixture(autouse=True)
def _interpreted() -> None:
    assert triton_forms.interpreted(), "TRITON_INTERPRET=1 is not set"
    torch.manual_seed(0)


def check(got: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5, or to one rounding of bfloat16."""
    assert got.dtype == expected.dtype
    lowered = got.dtype == torch.bfloat16
    scale = float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=2**-7 if lowered else 1e-5, atol=1e-5 * max(scale, 1.0))


def check_moments(moments: Tensor, x: Tensor) -> None:
    """The moments are those of the values as they are stored."""
    values = x.double().flatten(1, 2)
    torch.testing.assert_close(moments.sum(1).double()[:, 0], values.sum(1), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(moments.sum(1).double()[:, 1], values.square().sum(1), rtol=1e-5, atol=1e-4)


def both(kernel: Callable[..., None], plain: Callable[..., None], outputs: Callable[[], list[Any]], *rest: Any) -> Any:
    """What both forms write, into tensors that `outputs` makes."""
    made = []
    for form in (kernel, plain):
        written = outputs()
        form(*written, *rest)
        made.append(written)
    return made


def slices(x: Tensor) -> Tensor:
    """The image's values as some channels of a wider image."""
    wide = torch.full((*x.shape[:3], 3 * x.shape[3]), torch.nan, dtype=x.dtype)
    wide[..., x.shape[3] : 2 * x.shape[3]] = x
    return wide[..., x.shape[3] : 2 * x.shape[3]]


@precisions
@pytest.mark.parametrize(
    ("shape", "sources", "residuals", "bias", "slope", "also"),
    [
        ((1, 5, 7, 24), 1, 0, True, 0.2, True),
        ((5, 3, 2, 8), 3, 2, True, 1.0, False),
        ((1, 4, 9, 64), 2, 1, False, 0.0, False),
        ((5, 1, 1, 6), 1, 2, True, 0.2, True),
        ((1, 2, 3, 512), 1, 1, True, 0.2, False),
        ((1, 3, 3, 192), 1, 1, True, 0.1, False),
    ],
)
def test_sums(dtype, shape, sources, residuals, bias, slope, also):
    given = [slices(torch.randn(shape).to(dtype)) for _ in range(sources)]
    added = [torch.randn(shape).to(dtype) for _ in range(residuals)]

    def outputs() -> list[Any]:
        return [torch.empty(shape, dtype=dtype), slices(torch.zeros(shape, dtype=dtype)) if also else None, None]

    kernel, plain = both(
        triton_forms.combine, operations.combine_plain, outputs,
        given, torch.randn(shape[-1]).to(dtype) if bias else None, added, slope, 0.2, False,
    )  # fmt: skip
    check(kernel[0], plain[0])
    if also:
        assert torch.equal(kernel[1], kernel[0])


@precisions
@pytest.mark.parametrize("size", [(6, 8), (5, 8), (6, 7), (3, 3), (1, 1)])
def test_an_unfolded_image_and_its_moments(dtype, size):
    H, W = size
    source = torch.randn(2, (H + 1) // 2 + 1, (W + 1) // 2 + 1, 4 * 12).to(dtype)

    def outputs() -> list[Any]:
        return [
            torch.empty(2, H, W, 12, dtype=dtype),
            None,
            torch.full((2, triton_forms.moment_parts(H, W), 2, 12), 9.0),
        ]

    kernel, plain = both(
        triton_forms.combine, operations.combine_plain, outputs, [source], torch.randn(12).to(dtype), [], 1.0, 1.0, True
    )
    check(kernel[0], plain[0])
    check_moments(kernel[2], kernel[0])


@precisions
@pytest.mark.parametrize(
    ("shape", "width", "before", "given", "residuals"),
    [
        ((1, 5, 7, 16), 16, True, True, 0),
        ((5, 3, 2, 4), 4, True, True, 0),
        ((1, 3, 11, 64), 64, False, True, 2),
        ((5, 2, 3, 24), 12, False, True, 1),
        ((1, 6, 5, 32), 2, False, False, 0),
    ],
)
def test_a_convolution_with_few_channels(dtype, shape, width, before, given, residuals):
    B, H, W, N = shape
    x = slices(torch.randn(B, H, W, width).to(dtype))

    def outputs() -> list[Any]:
        seen = slices(torch.zeros(B, H, W, width, dtype=dtype)) if before else None
        return [torch.empty(shape, dtype=dtype), torch.zeros(shape, dtype=dtype), seen]

    kernel, plain = both(
        triton_forms.convolve, operations.convolve_plain, outputs,
        x, torch.randn(width).to(dtype) if before else None, (torch.randn(9, width, N) / (9 * width) ** 0.5).to(dtype),
        torch.randn(shape).to(dtype) if given else None, torch.randn(N).to(dtype),
        [torch.randn(shape).to(dtype) for _ in range(residuals)], 0.2, 0.1, 0.2,
    )  # fmt: skip
    check(kernel[0], plain[0]) if dtype == torch.float32 or not before else close(kernel[0], plain[0])
    assert torch.equal(kernel[1], kernel[0])
    if before:
        check(kernel[2], plain[2])


@pytest.mark.parametrize("width", [4, 16, 24, 64])
def test_taps_one_by_one_or_in_a_loop_give_the_same(width, monkeypatch):
    x, weight = torch.randn(2, 5, 3, width).bfloat16(), (torch.randn(9, width, 16) / (9 * width) ** 0.5).bfloat16()
    made = []
    for unrolled in (True, False):
        monkeypatch.setattr(triton_forms, "_UNROLLED", unrolled)
        seen = torch.zeros_like(x)
        bias, before = torch.ones(16).bfloat16(), torch.ones(width).bfloat16()
        made.append((operations.convolve(x, weight, bias, before=before, slope_before=0.2, seen=seen), seen))
    assert all(map(torch.equal, *made))


def close(got: Tensor, expected: Tensor) -> None:
    """Of a product with values that were rounded before, by the interpreter towards zero: a few roundings."""
    torch.testing.assert_close(got, expected, rtol=0.03, atol=0.03)


@precisions
@pytest.mark.parametrize(
    ("shape", "levels", "residuals"),
    [
        ((1, 5, 7, 16), 1, 1),
        ((5, 2, 3, 8), 5, 0),
        ((1, 1, 4, 36), 1, 2),
        ((1, 3, 1, 4), 1, 1),
        ((1, 6, 17, 64), 1, 2),
        ((1, 3, 2, 512), 1, 1),
    ],
)
def test_a_depthwise_convolution_and_its_moments(dtype, shape, levels, residuals):
    B, H, W, C = shape
    conv, moments = torch.randn(shape).to(dtype), (B, triton_forms.depthwise_parts(H, W), 2, C)
    kernel, plain = both(
        triton_forms.depthwise, operations.depthwise_plain, lambda: [conv.clone(), torch.full(moments, 9.0)],
        torch.randn(shape).to(dtype), torch.randn(levels, C), torch.randn(B, 9, C), torch.randn(levels, 9, C),
        [torch.randn(shape).to(dtype) for _ in range(residuals)], 0.1,
    )  # fmt: skip
    check(kernel[0], plain[0])
    check_moments(kernel[1], kernel[0])


@precisions
@pytest.mark.parametrize(
    ("batch", "size", "channels", "groups", "swish"),
    [
        (1, (5, 7), [24], 8, True),
        (5, (2, 3), [8, 4], 4, False),
        (1, (4, 5), [128, 64], 32, True),
        (1, (1, 1), [6, 6], 2, True),
        (1, (3, 2), [512, 512], 32, True),
    ],
)
def test_a_group_norm_of_one_or_two_images(dtype, batch, size, channels, groups, swish):
    parts = [operations.with_moments((3 * torch.randn(batch, *size, C) + 1).to(dtype)) for C in channels]
    weight, bias = torch.randn(sum(channels)), torch.randn(sum(channels))
    got = operations.normalised(parts, groups, weight, bias, 1e-5, swish=swish, dtype=torch.float32)
    x = torch.cat([part.x for part in parts], -1).float().movedim(-1, 1)
    expected = F.group_norm(x, groups, weight, bias).movedim(1, -1)
    check(got, F.silu(expected) if swish else expected)


def test_a_sample_has_the_same_bits_in_any_batch():
    """The sums' order depends on the image's size alone."""
    shape = (5, 9, 5, 12)
    h, conv, x = (torch.randn(shape) for _ in range(3))
    shift, taps, kernels = torch.randn(1, 12), torch.randn(1, 9, 12), torch.randn(5, 9, 12)

    def run(rows: slice) -> Tensor:
        features = operations.depthwise(h[rows], shift, kernels[rows], conv[rows].clone(), taps, [x[rows]])
        others = operations.with_moments(x[rows])
        return operations.normalised([features, others], 8, torch.ones(24), torch.zeros(24), 1e-5, swish=True)

    assert torch.equal(run(slice(0, 5))[3:4], run(slice(3, 4)))


#: Elements from one pixel to the next of an image whose third pixel is more than 2³¹ elements from its first.
APART = (1 << 30) + 8


def apart(values: Tensor) -> Tensor:
    """The values of an image of three pixels, (1, 1, 3, C) in bfloat16, so far from each other that 32 bits cannot say
    how far. What lies between them takes no memory: nobody touches it."""
    try:
        image = torch.empty(2 * APART + values.shape[-1], dtype=torch.bfloat16)
    except RuntimeError:
        pytest.skip("this machine does not promise 4 GB")
    image = image.as_strided(values.shape, (3 * APART, 3 * APART, APART, 1))
    return image.copy_(values)


def test_pixels_may_lie_further_apart_than_32_bits_can_say():
    x, weight, bias = torch.randn(1, 1, 3, 8).bfloat16(), torch.randn(9, 8, 8).bfloat16(), torch.randn(8).bfloat16()
    for image in (x, apart(x)):
        out, also = torch.empty_like(x), apart(torch.zeros_like(x))
        triton_forms.combine(out, also, None, [image, x], bias, [image], 0.2, 0.2, False)
        convolved = torch.empty_like(x)
        triton_forms.convolve(convolved, None, None, image, None, weight, x, bias, [image], 1.0, 0.1, 0.2)
        assert torch.equal(also, out)
        check(out, (F.leaky_relu(2 * x.float() + bias.float(), 0.2) * 0.2 + x.float()).bfloat16())
        expected = torch.empty_like(x)
        operations.convolve_plain(expected, None, None, x, None, weight, x, bias, [x], 1.0, 0.1, 0.2)
        check(convolved, expected)


def test_counting_in_64_bits_gives_the_same_bits(monkeypatch):
    shape = (2, 9, 5, 12)
    h, conv, x = (torch.randn(shape) for _ in range(3))
    shift, taps, kernels = torch.randn(1, 12), torch.randn(1, 9, 12), torch.randn(2, 9, 12)
    weight, bias, source = torch.randn(9, 12, 12), torch.randn(12), torch.randn(2, 6, 4, 48)

    def run() -> list[Tensor]:
        features = operations.depthwise(h, shift, kernels, conv.clone(), taps, [x])
        others = operations.with_moments(source, bias, unfold=(9, 5))
        both = operations.normalised([features, others], 8, torch.ones(24), torch.zeros(24), 1e-5, swish=True)
        return [both, operations.convolve(x, weight, bias, before=bias, seen=torch.empty_like(x)), *others]

    near = run()
    monkeypatch.setattr(triton_forms, "_far", lambda *_: True)
    assert all(map(torch.equal, near, run()))


@pytest.mark.parametrize(
    ("shape", "far"),
    [
        ((32, 768, 768, 128), False),  # the batch does not count
        ((1, 2048, 2048, 255), False),
        ((1, 2048, 2048, 256), True),
        ((1, 4096, 4096, 128), True),
        ((1, 768, 768, 64), False),
    ],
)
def test_large_images_are_counted_in_64_bits(shape, far):
    assert triton_forms._far(torch.empty(shape, device="meta")) is far
