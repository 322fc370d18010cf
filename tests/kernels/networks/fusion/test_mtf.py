"""Fusion v2 has the published layout and the published arithmetic, whatever its number of blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.networks.fusion.build import build_fusion, fusion_from_weights
from difffusr.kernels.networks.fusion.frame import PUBLISHED_V2, FusionConfig, FusionNetwork
from difffusr.kernels.weights.checkpoints import load_weights

NB = pytest.mark.parametrize("nb", [1, 3, 5])


def network_of(nb: int) -> FusionNetwork:
    torch.manual_seed(nb)
    return build_fusion(FusionConfig("v2", channels=8, blocks=nb, growth=4)).eval().requires_grad_(False)


def published_keys(nb: int, bands: int) -> set[str]:
    """The keys of one branch, written out as the published `nn.Sequential`s number them."""
    dense, residual = nb // 2, max(1, nb // 2)
    layers = ["detail_net.0", f"detail_net.{2 + dense}", "gain_estimator.0", "gain_estimator.2"]
    layers += [
        f"detail_net.{2 + i}.RDB{rdb}.conv{conv}" for i in range(dense) for rdb in (1, 2, 3) for conv in range(1, 6)
    ]
    layers += ["refinement.0", f"refinement.{2 + residual}"]
    layers += [f"refinement.{2 + i}.{conv}" for i in range(residual) for conv in ("conv20", "conv21")]
    own = {"mtf_ratios", "pan_mixer.logits"} | {f"mtf_filters.{i}.weight" for i in range(bands)}
    return own | {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}


@NB
def test_the_keys_are_those_of_the_published_layout(nb: int):
    network = network_of(nb)
    for gsd, names in GROUPS.items():
        assert set(network.branch(gsd).state_dict()) == published_keys(nb, len(names))


def test_the_published_size_has_one_block_each():
    with torch.device("meta"):
        network = build_fusion(PUBLISHED_V2)
    assert sum(parameter.numel() for parameter in network.parameters()) == 608_463
    for gsd, names in GROUPS.items():
        shapes = {key: tuple(tensor.shape) for key, tensor in network.branch(gsd).state_dict().items()}
        assert set(shapes) == published_keys(3, len(names))
        assert shapes["refinement.0.weight"] == (32, len(names) + 1, 3, 3)
        assert shapes["refinement.2.conv20.weight"] == (32, 32, 3, 3)
        assert shapes["refinement.3.weight"] == (len(names), 32, 3, 3)
        assert shapes["detail_net.2.RDB1.conv1.weight"] == (16, 32, 3, 3)


@NB
def test_a_file_gives_the_network_back(tmp_path, nb: int):
    network = network_of(nb)
    save_file(network.state_dict(), tmp_path / "fusion.safetensors")
    again = fusion_from_weights(load_weights(tmp_path / "fusion.safetensors"))
    assert FusionConfig.from_state_dict(again.state_dict()).blocks == nb
    for key, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


def restated(weights: dict[str, Tensor], nb: int, ratio: int, guide: Tensor, ms: Tensor) -> Tensor:
    """The branch as reference section 2.2 writes it, band by band."""

    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def lrelu(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2)

    def dense(name: str, x: Tensor) -> Tensor:
        y = x
        for rdb in (1, 2, 3):
            seen = [y]
            for i in range(1, 5):
                seen.append(lrelu(conv(f"{name}.RDB{rdb}.conv{i}", torch.cat(seen, 1))))
            y = y + 0.2 * conv(f"{name}.RDB{rdb}.conv5", torch.cat(seen, 1))
        return x + 0.2 * y

    blocks, residual = nb // 2, max(1, nb // 2)
    height, width = guide.shape[-2:]
    mix = weights["pan_mixer.logits"].softmax(0)
    pan = sum(mix[i] * guide[:, i : i + 1] for i in range(3))
    details, bands = [], []
    for i in range(ms.shape[1]):
        kernel, band = weights[f"mtf_filters.{i}.weight"], ms[:, i : i + 1]
        low = F.conv2d(F.pad(pan, [kernel.shape[-1] // 2] * 4, mode="reflect"), kernel)
        low = F.interpolate(low, size=(height // ratio, width // ratio), mode="area")
        low = F.interpolate(low, size=(height, width), mode="bicubic", align_corners=False)
        detail = pan - low
        x = lrelu(conv("detail_net.0", torch.cat([detail, band], 1)))
        for block in range(blocks):
            x = dense(f"detail_net.{2 + block}", x)
        detail = detail + conv(f"detail_net.{2 + blocks}", x)
        x = lrelu(conv("gain_estimator.0", torch.cat([pan, low, ms.mean(1, keepdim=True)], 1)))
        bands.append(band + (1 + conv("gain_estimator.2", x)) * detail)
        details.append(detail)
    e = torch.cat(bands, 1)
    x = lrelu(conv("refinement.0", torch.cat([e, torch.cat(details, 1).mean(1, keepdim=True)], 1)))
    for block in range(residual):
        name = f"refinement.{2 + block}"
        x = x + conv(f"{name}.conv21", conv(f"{name}.conv20", x).relu())
    return e + conv(f"refinement.{2 + residual}", x)


@NB
@pytest.mark.parametrize(("gsd", "ratio"), [(10, 4), (20, 8), (60, 24)])
def test_a_branch_computes_what_the_reference_writes(nb: int, gsd: int, ratio: int):
    branch = network_of(nb).branch(gsd)
    generator = torch.Generator().manual_seed(gsd)
    guide = torch.randn(2, 3, 48, 48, generator=generator)
    ms = torch.randn(2, len(GROUPS[gsd]), 48, 48, generator=generator)
    out = branch(guide, ms)
    torch.testing.assert_close(out, restated(branch.state_dict(), nb, ratio, guide, ms), rtol=1e-4, atol=1e-4)
