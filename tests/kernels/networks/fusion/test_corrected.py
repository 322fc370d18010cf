"""The network that corrects a classical estimate cannot lose it, and leaves no mark of its own grid."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from smooth_chips import chips
from torch import Tensor, nn

from difffusr.kernels.bands import GROUPS, RGB
from difffusr.kernels.images import FUSION, FUSION_RGB, observe, sensor_for_group
from difffusr.kernels.networks.fusion import (
    SMALL,
    build_fusion,
    classical_estimates,
    corrected,
    fusion_from_weights,
)
from difffusr.kernels.networks.fusion.classical import projected
from difffusr.kernels.networks.fusion.corrected import FusionCorrected, _inputs
from difffusr.kernels.networks.fusion.frame import FusionConfig
from difffusr.kernels.weights.checkpoints import load_weights

TINY = FusionConfig("corrected", 8, 1, 4)


def fresh(seed: int = 0, config: FusionConfig = TINY) -> nn.Module:
    torch.manual_seed(seed)
    return build_fusion(config).eval().requires_grad_(False)


def wild(seed: int = 0, strength: float = 3.0) -> nn.Module:
    """A network with weights that no training gave it."""
    network = fresh(seed)
    for gsd in GROUPS:
        nn.init.normal_(network.branch(gsd).last.weight, std=strength)
        nn.init.normal_(network.branch(gsd).last.bias, std=strength)
    return network


def ground(side_m: int = 480, count: int = 1, seed: int = 0) -> tuple[dict[int, Tensor], Tensor]:
    """Reflectance by native GSD and the guide at 2.5 m, of fields with edges."""
    generator = torch.Generator().manual_seed(seed)
    n = side_m // 10 * 4
    fields = F.interpolate(torch.rand(count, 12, 9, 9, generator=generator), size=n, mode="nearest")
    fields = 0.05 + 0.3 * fields.mean(1, keepdim=True) + 0.1 * fields
    order = [band for names in GROUPS.values() for band in names]
    native = {
        gsd: F.avg_pool2d(fields[:, [order.index(band) for band in names]], n * gsd // side_m)
        for gsd, names in GROUPS.items()
    }
    return native, fields[:, [order.index(band) for band in RGB]]


def roofs(side_m: int = 480) -> tuple[dict[int, Tensor], Tensor]:
    """Small bright roofs on dark ground, seen through the sensors, and a guide that shows only some of them."""
    n = side_m // 10 * 4
    generator = torch.Generator().manual_seed(0)
    fine = torch.full((1, 12, n, n), 0.02)
    for i in range(12):
        row, col = torch.randint(8, n - 20, (2,), generator=generator).tolist()
        fine[:, 0 if i % 2 else 3 :, row : row + 10, col : col + 10] = 0.9
    order = [band for names in GROUPS.values() for band in names]
    native = {}
    for gsd, names in GROUPS.items():
        sensor = sensor_for_group(gsd, side_m // gsd)
        native[gsd] = observe(fine[:, [order.index(band) for band in names]], sensor)
    return native, fine[:, [order.index(band) for band in RGB]]


def run(network: nn.Module, native: Mapping[int, Tensor], guide: Tensor) -> dict[int, Tensor]:
    given = {gsd: FUSION.select(GROUPS[gsd]).apply(x) for gsd, x in native.items()}
    out = network(given, FUSION_RGB.apply(guide))
    return {gsd: FUSION.select(GROUPS[gsd]).invert(x) for gsd, x in out.items()}


@pytest.mark.parametrize("seed", range(3))
def test_before_it_has_learned_it_is_the_classical_estimate(monkeypatch, seed: int):
    monkeypatch.setattr(corrected, "ROUNDS", dict.fromkeys(GROUPS, 0))
    native, guide = ground(seed=seed)
    found, estimates = run(fresh(seed), native, guide), classical_estimates(guide, native)
    for gsd in GROUPS:
        near = (found[gsd] - estimates[gsd]).abs() < 1e-4  # of the guide, what may be noise is left out
        assert near.float().mean() > 0.98  # the rest left the range of what is measured around it


def test_beside_bright_roofs_there_is_no_floor_and_what_was_measured_is_kept():
    native, guide = roofs()
    found = run(fresh(), native, guide)
    for gsd in (10, 20):
        estimate = classical_estimates(guide, native)[gsd]
        plain = projected(gsd, estimate, native[gsd], GROUPS[gsd])
        assert plain.min() < -0.02, "the case is a hard one"
        assert found[gsd].min() > 0
        sensor = sensor_for_group(gsd, native[gsd].shape[-1])
        residual, before = (
            (observe(x, sensor) - native[gsd]).abs().mean() for x in (found[gsd], estimate.clamp_min(0))
        )
        assert residual < 0.0035
        assert residual < 0.5 * before


@pytest.mark.parametrize("gsd", GROUPS)
def test_one_group_alone_is_what_all_together_give(gsd: int):
    network, (native, guide) = wild(), ground()
    given = {g: FUSION.select(GROUPS[g]).apply(x) for g, x in native.items()}
    alone = network.fuse_group(gsd, FUSION_RGB.apply(guide), *(given[g] for g in network.sources[gsd]))
    torch.testing.assert_close(alone, network(given, FUSION_RGB.apply(guide))[gsd])


def test_the_guide_passes_unchanged():
    native, guide = ground()
    torch.testing.assert_close(run(wild(), native, guide)[10][:, :3], guide, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_no_weights_make_a_pixel_dark_or_bright_beyond_its_surroundings(seed: int):
    native, guide = ground(seed=seed)
    native = {gsd: x * (0.02 if seed == 4 else 1) for gsd, x in native.items()}
    for gsd, x in run(wild(seed), native, guide).items():
        ms, channels = native[gsd], [i for i, band in enumerate(GROUPS[gsd]) if band not in RGB]
        low, high = (f((-2, -1))[:, channels] for f in (ms.amin, ms.amax))
        assert (x[:, channels].amin((-2, -1)) >= 0.19 * low).all()
        highest = high + 1.001 * corrected.BEYOND[gsd] * (high - low) + 0.0021
        estimated = classical_estimates(guide, native)[gsd][:, channels].amax((-2, -1))
        assert (x[:, channels].amax((-2, -1)) <= torch.maximum(highest, estimated)).all()


@pytest.mark.parametrize("pixels", [1, 2, 3, 5, 8])
def test_what_the_guide_shows_of_a_lone_roof_is_kept(pixels: int):
    """A roof far smaller than a 20 m pixel is hardly measured, but a clean mix of the guide."""
    guide = 0.1 + 0.01 * torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    guide[..., 90 : 90 + pixels, 90 : 90 + pixels] += 0.6
    mixes = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)) / 2
    fine = torch.einsum("bchw,ck->bkhw", guide, mixes)
    order = [band for names in GROUPS.values() for band in names]
    fine[:, [order.index(band) for band in RGB]] = guide
    native = {
        gsd: observe(fine[:, [order.index(band) for band in names]], sensor_for_group(gsd, 480 // gsd))
        for gsd, names in GROUPS.items()
    }
    estimate = classical_estimates(guide, native)[20][..., 90 : 90 + pixels, 90 : 90 + pixels].mean()
    roof = run(fresh(), native, guide)[20][..., 90 : 90 + pixels, 90 : 90 + pixels].mean()
    ground = native[20].mean()
    assert roof - ground > 0.9 * (estimate - ground) > 0.05


@pytest.mark.parametrize("level", [0.0, 0.001, 0.02, 0.3, 1.0])
def test_where_nothing_varies_nothing_is_added(level: float):
    native = {gsd: torch.full((1, len(names), 480 // gsd, 480 // gsd), level) for gsd, names in GROUPS.items()}
    for x in run(wild(), native, torch.full((1, 3, 192, 192), level)).values():
        torch.testing.assert_close(x, torch.full_like(x, level), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.0), (2.0, 0.0), (1.0, 0.1), (0.7, 0.05), (4.0, -0.1)])
def test_a_brighter_or_hazier_landscape_is_the_same_task(gain: float, offset: float):
    native, guide = ground()
    plain = run(wild(strength=0.1), native, guide)
    native = {gsd: gain * x + offset for gsd, x in native.items()}
    changed = run(wild(strength=0.1), native, gain * guide + offset)
    for gsd in GROUPS:
        expected = gain * plain[gsd] + offset
        assert (changed[gsd] - expected).std() < 0.05 * expected.std()


@pytest.mark.parametrize("period", [4, 8, 24])
def test_no_pixel_of_the_grid_stands_out(period: int):
    """Over ground without a grid, the mean of the correction is the same at every place within a period."""
    means = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        guide = 0.2 + 0.03 * torch.randn(1, 3, 192, 192, generator=generator)
        network = wild(seed, strength=0.5)
        branch, size = network.branch(10), 192
        correction = branch(*_inputs(torch.cat([guide, guide[:, :1]], 1)))[..., 48:-48, 48:-48]
        assert correction.shape[-1] == size - 96
        phases = correction.unfold(2, period, period).unfold(3, period, period).mean((0, 1, 2, 3))
        means.append(float(phases.var() / correction.var()))
        samples = correction.numel() / period**2
        assert means[-1] < 40 / samples  # pixels nearby are alike: some more than chance alone
    assert len(means) == 4


def test_chips_do_not_mix():
    native, guide = ground(count=3)
    network = wild()
    together = run(network, native, guide)
    for i in range(3):
        alone = run(network, {gsd: x[i : i + 1] for gsd, x in native.items()}, guide[i : i + 1])
        for gsd in GROUPS:
            torch.testing.assert_close(alone[gsd][0], together[gsd][i], atol=1e-4, rtol=1e-3)


def test_bands_may_come_on_the_10_m_grid_and_without_a_guide():
    native, guide = ground()
    ten = {gsd: F.interpolate(x, size=native[10].shape[-2:], mode="nearest") for gsd, x in native.items()}
    network = wild()
    for gsd, x in run(network, ten, guide).items():
        torch.testing.assert_close(x, run(network, native, guide)[gsd], atol=1e-4, rtol=1e-3)
    assert network({gsd: FUSION.select(GROUPS[gsd]).apply(x) for gsd, x in native.items()})[60].shape[-1] == 192


def test_the_order_of_bands_within_a_group_is_free():
    groups = {gsd: tuple(reversed(names)) for gsd, names in GROUPS.items()}
    network = FusionCorrected(8, 1, 4, groups).eval().requires_grad_(False)
    native, guide = ground()
    given = {gsd: FUSION.select(groups[gsd]).apply(x.flip(1)) for gsd, x in native.items()}
    found = network(given, FUSION_RGB.apply(guide))
    expected = run(fresh(), native, guide)
    for gsd in GROUPS:
        plain = FUSION.select(groups[gsd]).invert(found[gsd]).flip(1)
        torch.testing.assert_close(plain, expected[gsd], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("config", [TINY, SMALL, FusionConfig("corrected", 24, 3, 16)], ids=str)
def test_weights_find_their_network_again(tmp_path, config: FusionConfig):
    network = fresh(config=config)
    save_file(network.state_dict(), tmp_path / "fusion.safetensors")
    read = load_weights(tmp_path / "fusion.safetensors")
    assert (read.kind, FusionConfig.from_state_dict(read.state_dict)) == ("fusion_corrected", config)
    again = fusion_from_weights(read)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_it_is_small():
    assert sum(p.numel() for p in build_fusion(SMALL).parameters()) < 300_000


def test_the_whole_model_runs_with_it_and_passes_rgb_on():
    from difffusr.kernels.bands import BANDS, band_indices
    from difffusr.kernels.model import SuperResolution, super_resolve_rgb
    from difffusr.kernels.networks.stage1 import SMALL as SMALL_STAGE1
    from difffusr.kernels.networks.stage1 import Stage1
    from difffusr.kernels.sampling import Sampling

    torch.manual_seed(0)
    stage1, sampling = Stage1(SMALL_STAGE1), Sampling(solver="none", consistency=False)
    bands, valid, _ = chips(side_m=240)
    valid = {gsd: torch.ones_like(x) for gsd, x in valid.items()}
    out = SuperResolution(stage1, fresh(), sampling)(bands, valid, None)
    assert out.shape == (1, len(BANDS), 96, 96)
    sr = super_resolve_rgb(stage1, bands[10][:, :3], None, sampling)
    torch.testing.assert_close(out[:, band_indices(RGB)], sr, atol=1e-5, rtol=1e-5)


def test_the_whole_model_leaves_no_floor_beside_roofs():
    from difffusr.kernels.bands import BANDS, band_indices
    from difffusr.kernels.model import SuperResolution
    from difffusr.kernels.networks.stage1 import SMALL as SMALL_STAGE1
    from difffusr.kernels.networks.stage1 import Stage1
    from difffusr.kernels.sampling import Sampling

    torch.manual_seed(0)
    native, _ = roofs()
    valid = {gsd: torch.ones_like(x[:, :1], dtype=torch.bool) for gsd, x in native.items()}
    out = SuperResolution(Stage1(SMALL_STAGE1), fresh(), Sampling(solver="none"))(native, valid, None)
    assert out[:, band_indices([band for band in BANDS if band not in RGB])].min() > 0
