"""Operations around convolutions compute the same in the form that a compiler fuses."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from difffusr.kernels.networks.fused import depthwise, depthwise_by_shifts, norm_swish, norm_swish_by_moments


def test_a_norm_by_moments_is_the_librarys():
    x = (torch.randn(2, 24, 17, 13) * 3 + 1).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(24), torch.randn(24)
    for groups in (8, 24):
        torch.testing.assert_close(
            norm_swish_by_moments(x, groups, weight, bias), norm_swish(x, groups, weight, bias), atol=1e-5, rtol=1e-5
        )


def test_a_depthwise_convolution_by_shifts_is_the_librarys():
    x, kernels = torch.randn(2, 5, 9, 12), torch.randn(2, 5, 1, 3, 3)
    torch.testing.assert_close(depthwise_by_shifts(x, kernels), depthwise(x, kernels), atol=1e-5, rtol=1e-5)
    one = F.conv2d(x[1:], kernels[1], padding=1, groups=5)
    torch.testing.assert_close(depthwise_by_shifts(x, kernels)[1:], one, atol=1e-5, rtol=1e-5)
