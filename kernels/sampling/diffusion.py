"""The diffusion process: noise schedule, forward process, deterministic samplers (reference section 1.4).

Symbols: t timestep, ᾱ (`abar`) cumulative product of 1 − β, ℓ = √ᾱ noise level, x̂0 (`x0`) predicted clean image,
ε (`eps`) the noise it implies. Nichol and Dhariwal 2021 (cosine schedule), Song et al. 2021 (DDIM), Lu et al. 2022
(DPM-Solver++).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The process's constants by timestep: 14 float32 tensors (T,), named as in published checkpoints.

    `*_prev` are values at t − 1, with ᾱ = 1 before the first step.
    """

    betas: Tensor
    alphas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_alphas_cumprod_prev: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    log_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor

    def __len__(self) -> int:
        """T, the number of timesteps."""
        return len(self.betas)

    def buffers(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> Schedule:
        """The same schedule on another device."""
        return Schedule(**{name: tensor.to(device) for name, tensor in self.buffers().items()})


def cosine_betas(T: int = 1000, s: float = 0.008) -> Tensor:
    """β of the cosine schedule, float64 (T,); none above 0.999."""
    i = torch.arange(T + 1, dtype=torch.float64, device="cpu")
    g = torch.cos((i / T + s) / (1 + s) * (math.pi / 2)) ** 2
    g = g / g[0]
    return (1 - g[1:] / g[:-1]).clamp(max=0.999)


def cosine_schedule(T: int = 1000, s: float = 0.008) -> Schedule:
    """The published schedule: computed in float64, kept in float32, on the CPU."""
    beta = cosine_betas(T, s)
    alpha = 1 - beta
    abar = alpha.cumprod(0)
    abar_prev = torch.cat([abar.new_ones(1), abar[:-1]])
    variance = beta * (1 - abar_prev) / (1 - abar)
    exact = {
        "betas": beta,
        "alphas": alpha,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": abar_prev,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_alphas_cumprod_prev": abar_prev.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": torch.cat([variance[1:2], variance[1:]]).log(),  # it is 0 at t = 0
        "posterior_mean_coef1": beta * abar_prev.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - abar_prev) * alpha.sqrt() / (1 - abar),
    }
    return Schedule(**{name: tensor.float() for name, tensor in exact.items()})


def ddim_timesteps(T: int, skip: int) -> list[tuple[int, int]]:
    """(t, t_prev) of each sampler step in sampling order: T − skip … 0, each going to the next, the last to itself."""
    steps = list(range(0, T, skip))[::-1]
    return list(zip(steps, [*steps[1:], steps[-1]], strict=True))


def q_sample(x0: Tensor, t: Tensor, u: Tensor, noise: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The forward process at a continuous noise level, for training.

    `x0`, `noise` (B, C, H, W); `t` (B,) int64 timesteps; `u` (B,) in [0, 1) interpolates between the levels of t and
    t − 1. Returns x_t (B, C, H, W) and the level ℓ (B, 1, 1, 1); `ℓ.flatten(1)` is the network's input.
    """
    upper, lower = schedule.sqrt_alphas_cumprod_prev[t], schedule.sqrt_alphas_cumprod[t]
    level = (lower + u * (upper - lower)).view(-1, 1, 1, 1)
    return level * x0 + ((1 - level) * (1 + level)).sqrt() * noise, level


def ddim_sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x_T: Tensor,
    schedule: Schedule,
    skip: int = 50,
    skip_last: bool = False,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    denoised: bool = False,
    clip: float = 1.0,
) -> Tensor:
    """From noise to image: the DDIM sampler, deterministic at `eta` 0.

    `denoise(x, level)` predicts the clean image x̂0 from x (B, C, H, W) and the noise level ℓ = √ᾱ (B, 1). `x_T`
    (B, C, H, W) is standard normal noise. Every `skip`-th timestep is visited. The last step goes from t = 0 to t = 0
    and changes only float32 rounding (5e-4 at most), so `skip_last` saves one evaluation. `generator` is for
    eta > 0. Returns x (B, C, H, W), in [-1, 1] but for a little noise, √(1 − ᾱ_0) = 0.0064 of it; not clamped. With
    `denoised` the last x̂0 is returned instead, without that noise; the published sampler keeps it. Estimates are
    clamped to ±`clip`, 1 as published.
    """
    buffers = (schedule.alphas_cumprod, schedule.sqrt_recip_alphas_cumprod, schedule.sqrt_recipm1_alphas_cumprod)
    abar, r, m = (buffer.tolist() for buffer in buffers)  # floats: no step waits for the device
    level = schedule.sqrt_alphas_cumprod.tolist()
    steps = ddim_timesteps(len(schedule), skip)
    x = x0 = x_T
    for t, p in steps[:-1] if skip_last else steps:
        x0 = denoise(x, x.new_full((len(x), 1), level[t])).to(x.dtype).clamp(-clip, clip)
        eps = torch.sub(r[t] * x, x0).div_(m[t])  # ε = (x/√ᾱ_t − x̂0) / √(1/ᾱ_t − 1)
        sigma = eta * math.sqrt((1 - abar[p]) / (1 - abar[t])) * math.sqrt(1 - abar[t] / abar[p])
        x = torch.mul(x0, math.sqrt(abar[p])).add_(eps, alpha=math.sqrt(1 - abar[p] - sigma**2))
        if sigma and t:
            x.add_(torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device), alpha=sigma)
    return x0 if denoised else x


def multistep_levels(schedule: Schedule, steps: int) -> list[float]:
    """Noise levels ℓ that `multistep_sample` visits in `steps` evaluations, noisiest first.

    Equally far from each other in λ = log(ℓ / √(1 − ℓ²)). They begin and end where the published 20 steps do, at
    t = 950 and t = 50 of 1000: nearer to pure noise λ diverges and the image carries no signal, nearer to the clean
    image there is nothing left to add.
    """
    ends = schedule.sqrt_alphas_cumprod[[len(schedule) * 19 // 20, len(schedule) // 20]].double()
    start, end = (ends / (1 - ends**2).sqrt()).log().tolist()
    lam = torch.linspace(start, end, steps, dtype=torch.float64, device="cpu")
    return lam.mul(2).sigmoid().sqrt().tolist()  # ᾱ / (1 − ᾱ) = e^2λ


def multistep_sample(
    denoise: Callable[[Tensor, Tensor], Tensor], x_T: Tensor, levels: Sequence[float], clip: float = 1.0
) -> Tensor:
    """From noise to image in few evaluations: DPM-Solver++(2M), deterministic, of second order.

    It solves the same ordinary differential equation as DDIM, which is its first order, and extrapolates x̂0 from the
    last two evaluations (Lu et al. 2022, "DPM-Solver++", algorithm 2). With α = ℓ, σ = √(1 − ℓ²) and λ = log(α/σ), a
    step of h from λ_s to λ_t is x_t = σ_t/σ_s x_s − α_t (e^−h − 1) D.

    Args:
        denoise: predicts the clean image x̂0 from x (B, C, H, W) and the noise level ℓ (B, 1).
        x_T: (B, C, H, W), standard normal noise, taken as x at the first level.
        levels: ℓ of each evaluation, increasing, within (0, 1); see `multistep_levels`.
        clip: estimates are clamped to ± this.

    Returns:
        the estimate x̂0 at the last level, (B, C, H, W), which equals a last step of first order to λ = ∞.
    """

    def estimate(x: Tensor, level: float) -> Tensor:
        return denoise(x, x.new_full((len(x), 1), level)).to(x.dtype).clamp(-clip, clip)

    alpha, sigma = levels, [math.sqrt((1 - level) * (1 + level)) for level in levels]
    lam = [math.log(a / s) for a, s in zip(alpha, sigma, strict=True)]
    x = x0_before = x_T
    for t in range(1, len(levels)):
        s = t - 1
        h = lam[t] - lam[s]
        D = x0 = estimate(x, levels[s])
        if s:  # the first step has no predecessor and is of first order
            r = (lam[s] - lam[s - 1]) / h
            D = x0 + (x0 - x0_before) / (2 * r)
        x = torch.mul(x, sigma[t] / sigma[s]).sub_(D, alpha=alpha[t] * math.expm1(-h))
        x0_before = x0
    return estimate(x, levels[-1])
