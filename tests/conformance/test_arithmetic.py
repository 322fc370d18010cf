"""Degradation, normalisation, harmonisation and metrics give the published numbers."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from difffusr.kernels.images import normalisation
from difffusr.kernels.images.degradation import (
    REFERENCE_THETA_MAX,
    DegradationDraws,
    bicubic_downsample,
    blur,
    degrade,
    degrade_for_validation,
    gaussian_kernels,
    isotropic_kernels,
    wald_downsample,
)
from difffusr.kernels.images.harmonisation import GAMMA_RGB, harmonise
from difffusr.kernels.measures.metrics import (
    benchmark_downsample,
    benchmark_scores,
    ergas,
    validation_ergas,
    validation_psnr_ssim,
)

if TYPE_CHECKING:
    from published_numbers import Conformance

ONE_COUNT = 1.0  # where rounding or truncation to counts may fall either way


def channels_first(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1)


def test_blur_kernels(conformance: Conformance) -> None:
    fixture = conformance("12_degradation")
    for sigma in (0.2, 1.2, 2.0, 4.0):
        fixture.check(isotropic_kernels(torch.tensor([sigma]))[0], f"iso_{sigma}")
    for name in (n for n in fixture.arrays if n.startswith("aniso_")):
        sigma_1, sigma_2, degrees = (torch.tensor([float(part)]) for part in name.split("_")[1:])
        fixture.check(gaussian_kernels(sigma_1, sigma_2, torch.deg2rad(degrees))[0], name)


def test_blur_and_bicubic_reduction(conformance: Conformance) -> None:
    fixture = conformance("12_degradation")
    hr = fixture.tensor("hr")
    blurred = blur(hr, fixture.tensor("batch_kernels"))
    fixture.check(blurred, "blurred")
    fixture.check(bicubic_downsample(hr, 4), "bicubic_x1/4")
    fixture.check(bicubic_downsample(hr, 2), "bicubic_x1/2")
    lr = bicubic_downsample(blurred, 4)
    fixture.check(lr, "blurred_then_down")
    fixture.check(lr.round().clamp(0, 255), "expected_lr_rounded", ONE_COUNT)


def test_the_training_degradation_with_its_recorded_draws(conformance: Conformance) -> None:
    fixture = conformance("12_degradation")
    hr = fixture.tensor("train/hr")
    noise = fixture.tensor("train/noise").unflatten(0, hr.shape[:2])
    u_noise = fixture.tensor("train/u_noise").flatten()
    sigmas = fixture.tensor("train/u_lambda1"), fixture.tensor("train/u_lambda2")
    draws = DegradationDraws(*sigmas, fixture.tensor("train/u_theta"), u_noise, noise)
    fixture.check(draws.kernels(REFERENCE_THETA_MAX), "train/kernels", fixture.tolerance())
    lr = degrade(hr, draws, theta_max=REFERENCE_THETA_MAX)
    fixture.check(lr, "train/lr", ONE_COUNT)
    assert (lr != fixture.tensor("train/lr")).float().mean() < 0.01  # ties are rare


def test_the_validation_degradation(conformance: Conformance) -> None:
    fixture = conformance("12_degradation")
    fixture.check(degrade_for_validation(fixture.tensor("valid/hr")), "valid/lr", ONE_COUNT)


@pytest.mark.parametrize("factor", [2, 4, 6, 8, 24])
def test_walds_reduction(conformance: Conformance, factor: int) -> None:
    fixture = conformance("12_degradation")
    got = wald_downsample(fixture.tensor(f"box/in_{factor}"), factor)
    fixture.check(got, f"box/out_{factor}", fixture.tolerance("box"))


def test_degradations_drawn_from_equal_seeds_are_equal_and_turn_fully() -> None:
    shape = (256, 2, 3, 4, 4)
    first, second = (DegradationDraws.draw(shape, torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(astuple(first), astuple(second), strict=True))
    assert first.noise.shape == shape
    kernels = first.kernels()
    offset = torch.arange(21.0) - 10
    covariance = (kernels * offset[:, None] * offset[None, :]).sum((1, 2))
    assert covariance.min() < -1  # tilted one way
    assert covariance.max() > 1  # and the other


def test_normalisation_for_both_stages(conformance: Conformance) -> None:
    fixture = conformance("13_normalisation")
    x = normalisation.to_stage1(fixture.tensor("x"))
    fixture.check(x, "stage1_norm")
    fixture.check(normalisation.from_stage1(x), "stage1_denorm")
    bands = normalisation.FUSION.apply(fixture.tensor("y12"))
    fixture.check(bands, "y12_norm")
    fixture.check(normalisation.FUSION.invert(bands), "y12_back")
    fixture.check(normalisation.FUSION_RGB.apply(fixture.tensor("rgb")), "rgb_norm")


def test_eight_bits_and_digital_numbers(conformance: Conformance) -> None:
    fixture = conformance("13_normalisation")
    counts = normalisation.to_uint8(fixture.tensor("quant_in"))
    fixture.check(counts.permute(1, 2, 0), "quant_uint8_hwc", 0)
    dn = torch.from_numpy(fixture.arrays["dn"].astype(np.int32))
    fixture.check(normalisation.dn_to_reflectance(dn), "dn_raw_float")
    paired = normalisation.dn_to_uint8_truncated(dn)
    fixture.check(paired, "dn_paired_uint8", 0)
    fixture.check(paired / 255, "dn_paired_float")
    fixture.check(normalisation.uint8_to_dn(fixture.tensor("sr_uint8")), "sr_uint8_to_dn", 0)


def test_harmonisation(conformance: Conformance) -> None:
    fixture = conformance("14_harmonisation")
    image = channels_first(fixture.tensor("image"))
    drawn = [harmonise(image, gamma).permute(1, 2, 0) for gamma in fixture.arrays["gamma_drawn"].tolist()]
    fixture.check(torch.stack(drawn), "harmonised_drawn", ONE_COUNT)
    fixture.check(harmonise(image).permute(1, 2, 0), "harmonised_with_model_mean", ONE_COUNT)
    fixture.check(torch.tensor(GAMMA_RGB), "gamma_model_mean", 1e-7)


def test_the_final_tables_metrics(conformance: Conformance) -> None:
    fixture = conformance("15_metrics")
    downsampled = benchmark_downsample(channels_first(fixture.tensor("fused_uint8")))
    fixture.check(downsampled.permute(1, 2, 0), "fused_downsampled")
    truth = channels_first(fixture.tensor("fused_downsampled"))
    scores = benchmark_scores(channels_first(fixture.tensor("lr_uint8")), truth)
    fixture.check(torch.tensor(astuple(scores), dtype=torch.float64), "metrics_r2_cc_ssim_psnr_mse_ergas")


@pytest.mark.parametrize(("name", "luma"), [("psnr_ssim_rgb", False), ("psnr_ssim_y", True)])
def test_the_validation_metric_of_stage_1(conformance: Conformance, name: str, luma: bool) -> None:
    fixture = conformance("15_metrics")
    pair = (channels_first(fixture.tensor(n)) for n in ("img1", "img2"))
    fixture.check(torch.tensor(validation_psnr_ssim(*pair, luma=luma), dtype=torch.float64), name)


def test_ergas_as_fusion_checkpoints_were_chosen(conformance: Conformance) -> None:
    fixture = conformance("15_metrics")
    pair = fixture.tensor("ergas_pred"), fixture.tensor("ergas_target")
    fixture.check(ergas(*pair, ratio=4), "ergas_torchmetrics")
    assert validation_ergas(*pair) == float(fixture.arrays["ergas_rounded_as_logged"])
