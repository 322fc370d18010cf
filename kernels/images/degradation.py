"""The degradation of training images to low resolution: blur, decimation, noise (reference sections 2.3 and 3).

Images are (B, C, H, W), or (B, P, C, H, W) where P patches of one sample share its degradation. Kernels are (B, K, K),
rows first. Standard deviations are high-resolution pixels. Everything is linear in the image's scale except the noise
and the rounding of `degrade`, which are meant for 0..255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

#: Side of the blur kernels in pixels.
KERNEL_SIZE: Final = 21

#: Ranges of the training degradation: standard deviations along both axes, and of the noise (0..255 scale).
SIGMA_RANGE: Final = (0.2, 4.0)

NOISE_MAX: Final = 25.0

#: The reference rotates its kernels by at most one degree (a unit error); kept to reproduce it.
REFERENCE_THETA_MAX: Final = math.pi / 180


def gaussian_kernels(sigma_1: Tensor, sigma_2: Tensor, theta: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Anisotropic Gaussian kernels that sum to one.

    `sigma_1`, `sigma_2`: (B,) standard deviations in pixels along the kernel's own axes; `theta`: (B,) radians from the
    column axis to the first of them. Returns float32 (B, size, size), row then column.
    """
    s1, s2, angle = (t.to(torch.float64)[:, None, None] for t in (sigma_1, sigma_2, theta))  # (B, 1, 1)
    offset = torch.arange(size, dtype=torch.float64, device=sigma_1.device) - size // 2
    y, x = offset[:, None], offset[None, :]
    along = x * angle.cos() + y * angle.sin()  # (B, size, size), coordinates in the turned frame
    across = y * angle.cos() - x * angle.sin()
    weight = torch.exp(-0.5 * ((along / s1) ** 2 + (across / s2) ** 2))
    return (weight / weight.sum((1, 2), keepdim=True)).to(torch.float32)


def isotropic_kernels(sigma: Tensor, size: int = KERNEL_SIZE) -> Tensor:
    """Round Gaussian kernels: (B,) standard deviations in pixels → float32 (B, size, size)."""
    return gaussian_kernels(sigma, sigma, torch.zeros_like(sigma), size)


def blur(image: Tensor, kernels: Tensor) -> Tensor:
    """Each sample blurred with its own kernel, edges reflected.

    `image` (B, C, H, W) or (B, P, C, H, W), H and W above half the kernel; `kernels` (B, K, K). Same shape as `image`.
    """
    b, k = kernels.shape[0], kernels.shape[-1]
    h, w = image.shape[-2:]
    planes = F.pad(image.reshape(1, -1, h, w), [k // 2] * 4, mode="reflect")  # (1, B·P·C, H + K − 1, W + K − 1)
    per_sample = planes.shape[1] // b
    weight = kernels.to(image.dtype).repeat_interleave(per_sample, 0)[:, None]  # (B·P·C, 1, K, K)
    return F.conv2d(planes, weight, groups=b * per_sample).reshape(image.shape)


def bicubic_downsample(image: Tensor, factor: int) -> Tensor:
    """MATLAB-style bicubic reduction: the kernel (a = −0.5) widened by `factor`, so that it does not alias.

    (..., H, W) → (..., ⌈H / factor⌉, ⌈W / factor⌉). Beyond the edge the edge pixel is repeated.
    """
    rows, columns = (_bicubic_matrix(n, factor).to(image) for n in image.shape[-2:])
    return rows @ image @ columns.T


def blur_and_reduce(image: Tensor, kernels: Tensor, factor: int) -> Tensor:
    """`bicubic_downsample` of `blur` at once: five times as fast, for what is dropped is never computed.

    Shapes as in `blur`, H and W multiples of `factor`. Both steps reflect the edges: within two coarse pixels of them
    the result differs from that of the two steps.
    """
    spread = _spread(factor, kernels.shape[-1]).to(kernels)  # (K, n + K − 1)
    both = spread.mT @ kernels @ spread  # (B, n + K − 1, n + K − 1)
    k, n = kernels.shape[-1], spread.shape[-1] - kernels.shape[-1] + 1
    before = k // 2 + (n - factor) // 2
    h, w = image.shape[-2:]
    planes = image.reshape(len(kernels), -1, h, w).transpose(0, 1)  # the samples as channels
    planes = F.pad(planes, [before, before + n % 2] * 2, mode="reflect")
    out = F.conv2d(planes, both[:, None].to(image.dtype), stride=factor, groups=len(kernels))
    out = out[..., : h // factor, : w // factor].transpose(0, 1)
    return out.reshape(*image.shape[:-2], h // factor, w // factor)


@lru_cache(maxsize=8)
def _spread(factor: int, size: int) -> Tensor:
    """(size, size + n − 1): the n weights of fine pixels in one coarse pixel far from the edges, one further each row.

    There are as many before the coarse pixel as after it.
    """
    row = _bicubic_matrix(16 * factor, factor)[8]
    used = row.nonzero()[:, 0]
    taps = F.pad(row[used[0] : used[-1] + 1], [0, size - 1])
    return torch.stack([taps.roll(i) for i in range(size)])


@lru_cache(maxsize=32)
def _bicubic_matrix(size: int, factor: int) -> Tensor:
    """The reduction along one axis as a matrix (⌈size / factor⌉, size)."""
    out = math.ceil(size / factor)
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * factor - 0.5
    reach = 2 * factor
    tap = torch.floor(centre - reach)[:, None] + torch.arange(2 * reach + 2)  # (out, taps)
    distance = ((centre[:, None] - tap) / factor).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weight = torch.where(distance <= 1, near, torch.where(distance <= 2, far, 0.0))
    weight = weight / weight.sum(1, keepdim=True)
    matrix = torch.zeros(out, size, dtype=torch.float64)
    return matrix.scatter_add_(1, tap.clamp(0, size - 1).long(), weight)


@dataclass(frozen=True)
class DegradationDraws:
    """The random numbers of one degraded batch of B samples.

    `u_sigma_1`, `u_sigma_2`, `u_theta`, `u_noise`: (B,) uniform in [0, 1); `noise`: standard normal, of the
    low-resolution batch's shape (B, C, h, w) or (B, P, C, h, w).
    """

    u_sigma_1: Tensor
    u_sigma_2: Tensor
    u_theta: Tensor
    u_noise: Tensor
    noise: Tensor

    @classmethod
    def draw(cls, lr_shape: tuple[int, ...], generator: torch.Generator) -> DegradationDraws:
        """Draw them for a low-resolution batch of the given shape."""
        uniform = torch.rand(4, lr_shape[0], generator=generator, device=generator.device)
        noise = torch.randn(lr_shape, generator=generator, device=generator.device)
        return cls(uniform[0], uniform[1], uniform[2], uniform[3], noise)

    def kernels(self, theta_max: float = math.pi) -> Tensor:
        """The blur kernels (B, 21, 21) of these draws; `theta_max` in radians."""
        low, high = SIGMA_RANGE
        return gaussian_kernels(
            low + (high - low) * self.u_sigma_1, low + (high - low) * self.u_sigma_2, theta_max * self.u_theta
        )


def degrade(hr: Tensor, draws: DegradationDraws, factor: int = 4, theta_max: float = math.pi) -> Tensor:
    """The full degradation of stage-1 training: blur, bicubic reduction, noise, rounding to whole counts.

    `hr` (B, C, H, W) or (B, P, C, H, W) on the 0..255 scale; H, W multiples of `factor`. Returns float whole numbers in
    0..255 at 1 / `factor` of the size. `theta_max`: kernels turn in [0, theta_max) radians; `REFERENCE_THETA_MAX`
    reproduces the published training.
    """
    lr = bicubic_downsample(blur(hr, draws.kernels(theta_max)), factor)
    level = NOISE_MAX * draws.u_noise.reshape(-1, *[1] * (hr.ndim - 1))  # (B, 1, ...)
    return (lr + level * draws.noise).round().clamp(0, 255)


def degrade_for_validation(hr: Tensor, factor: int = 4, sigma: float = 1.2) -> Tensor:
    """A deterministic degradation: round blur, bicubic reduction, no noise, whole counts. Shapes as `degrade`."""
    kernels = isotropic_kernels(torch.full((hr.shape[0],), sigma, device=hr.device))
    return bicubic_downsample(blur(hr, kernels), factor).round().clamp(0, 255)


def wald_downsample(x: Tensor, factor: int) -> Tensor:
    """Reduce by a whole factor as the fusion's training does: 5×5 Gaussian (σ = factor), then factor × factor means.

    (B, C, H, W), H and W at least 3 → (B, C, ⌊H / factor⌋, ⌊W / factor⌋); units unchanged (reference section 2.3, D_f).
    """
    offset = torch.arange(-2, 3, dtype=torch.float32, device=x.device)
    g = torch.exp(-0.5 * (offset / factor) ** 2)
    g = (g / g.sum()).to(x.dtype)
    planes = F.pad(x, [2] * 4, mode="reflect").flatten(0, 1)[:, None]  # (B·C, 1, H + 4, W + 4)
    smooth = F.conv2d(F.conv2d(planes, g.view(1, 1, 5, 1)), g.view(1, 1, 1, 5))
    return F.avg_pool2d(smooth, factor).unflatten(0, x.shape[:2]).squeeze(2)
