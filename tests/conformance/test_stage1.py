"""Stage 1 computes what the published system computes: networks, schedule, sampler, training step, checkpoints."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from published_numbers import unet
from safetensors.torch import save_file
from torch import Tensor, nn

from difffusr.kernels.networks.degradation_encoder import DegradationEncoder, MomentumContrast, momentum_update
from difffusr.kernels.networks.fused import fuse
from difffusr.kernels.networks.rrdb import RRDBNet
from difffusr.kernels.networks.stage1 import PUBLISHED, SMALL, Stage1, Stage1Config
from difffusr.kernels.sampling.diffusion import cosine_betas, cosine_schedule, ddim_sample, ddim_timesteps, q_sample
from difffusr.kernels.weights.checkpoints import Weights, load_into, load_weights

SCHEDULE = cosine_schedule()


# the schedule and the forward process


def test_schedule_is_the_published_one(conformance):
    fixture = conformance("01_schedule")
    betas = cosine_betas()
    fixture.check(betas, "betas_f64")
    fixture.check((1 - betas).cumprod(0), "alphas_cumprod_f64")
    buffers = SCHEDULE.buffers()
    assert {f"buf_{name}" for name in buffers} == {name for name in fixture.arrays if name.startswith("buf_")}
    for name, tensor in buffers.items():
        assert tensor.dtype == torch.float32
        fixture.check(tensor, f"buf_{name}")


def test_sampler_visits_the_published_timesteps(conformance):
    fixture = conformance("01_schedule")
    steps = ddim_timesteps(1000, 50)
    assert steps == list(zip(fixture.arrays["timesteps"], fixture.arrays["timesteps_prev"], strict=True))
    t, p = (torch.tensor(side) for side in zip(*steps, strict=True))
    fixture.check(SCHEDULE.sqrt_alphas_cumprod[t], "noise_level_fed")
    fixture.check(SCHEDULE.alphas_cumprod[t], "alpha_bar")
    fixture.check(SCHEDULE.alphas_cumprod[p], "alpha_bar_prev")


def test_forward_process_at_a_continuous_level(conformance):
    fixture = conformance("01b_q_sample")
    x_t, level = q_sample(*(fixture.tensor(name) for name in ("x0", "t", "u", "noise")), SCHEDULE)
    fixture.check(level, "level")
    fixture.check(x_t, "x_t")


# the networks


@torch.no_grad()
def test_degradation_encoder(conformance):
    fixture = conformance("02_degradation_encoder")
    net = DegradationEncoder()
    net.load_state_dict(fixture.weights())
    net.eval()
    for i in (0, 1):
        fea, projection = net(fixture.tensor(f"x{i}"))
        fixture.check(fea, f"fea{i}")
        fixture.check(projection, f"mlp{i}")


class StandIn(nn.Module):
    """The small encoder of the contrastive fixture."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fea = self.a(x)
        return fea, self.b(fea.tanh())


def test_contrastive_training_steps(conformance):
    fixture = conformance("03_moco_training")
    moco = MomentumContrast(StandIn(), StandIn(), dim=4, queue_size=12)
    moco.load_state_dict(fixture.weights())
    steps = sum(name.startswith("xq") for name in fixture.arrays)
    assert steps >= 2
    for s in range(steps):
        fea, logits, labels = moco.contrast(fixture.tensor(f"xq{s}"), fixture.tensor(f"xk{s}"))
        fixture.check(fea, f"embedding{s}")
        fixture.check(logits, f"logits{s}")
        fixture.check(labels, f"labels{s}")
        fixture.check(F.cross_entropy(logits, labels), f"loss{s}")
        fixture.check(moco.queue, f"queue_after{s}")
        fixture.check(moco.queue_ptr, f"ptr_after{s}")
        for key, parameter in moco.encoder_k.named_parameters():
            fixture.check(parameter, f"key_encoder_after{s}/{key}")


def test_contrastive_wrapper_in_evaluation_gives_the_vector_before_the_mlp():
    moco = MomentumContrast(StandIn(), StandIn(), dim=4, queue_size=12).eval()
    x = torch.randn(2, 6)
    torch.testing.assert_close(moco(x), moco.encoder_q.a(x))


def test_contrastive_loss_reaches_the_query_encoder_and_only_it():
    moco = MomentumContrast(StandIn(), StandIn(), dim=4, queue_size=12)
    _, logits, labels = moco(torch.randn(3, 6), torch.randn(3, 6))
    F.cross_entropy(logits, labels).backward()
    assert all(parameter.grad is not None for parameter in moco.encoder_q.parameters())
    assert all(parameter.grad is None for parameter in moco.encoder_k.parameters())


@pytest.mark.parametrize("way", ["plain", "fused"])
@torch.no_grad()
def test_context_encoder(conformance, way):
    fixture = conformance("04_rrdbnet")
    net = RRDBNet(channels=16, blocks=2, growth=8)
    net.load_state_dict(fixture.weights())
    if way == "fused":
        fuse(net)
    for i in (0, 1):
        ctx, rgb = net(fixture.tensor(f"x{i}"))
        fixture.check(ctx, f"ctx{i}")
        fixture.check(rgb, f"out{i}")


UNET_INPUTS = ("x", "level", "ctx", "k_v")


@pytest.mark.parametrize("name", ["05_unet_A", "05_unet_B"])
@pytest.mark.parametrize("way", ["nchw", "nhwc", "fused"])
@torch.no_grad()
def test_unet(conformance, name, way):
    fixture = conformance(name)
    layout = torch.contiguous_format if way == "nchw" else torch.channels_last
    net = unet(fixture, fixture.weights()).to(memory_format=layout)
    if way == "fused":
        fuse(net)
    for i in (0, 1):  # the second is a batch of two, not square
        x, level, ctx, k = (fixture.tensor(f"{what}{i}") for what in UNET_INPUTS)
        fixture.check(net(x.contiguous(memory_format=layout), level, ctx, k), f"out{i}")


@torch.no_grad()
def test_samples_of_a_batch_do_not_see_each_other(conformance):
    fixture = conformance("05_unet_B")
    net = unet(fixture, fixture.weights())
    inputs = [fixture.tensor(f"{what}1") for what in UNET_INPUTS]
    alone = torch.cat([net(*(tensor[i : i + 1] for tensor in inputs)) for i in range(len(inputs[0]))])
    fixture.check(alone, "out1")


# the sampler


@torch.no_grad()
def test_sampler_step_by_step(conformance):
    fixture = conformance("06_ddim_loop")
    net = unet(fixture, conformance("05_unet_A").weights())
    x_T = fixture.tensor("skip50/x_T")
    conditioning = net.prepare(fixture.tensor("ctx"), fixture.tensor("k_v"), x_T.shape[-2:])
    seen: dict[str, list[Tensor]] = {"x_in": [], "level": [], "net_out": []}

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        out = net.denoise(x, level, conditioning)
        for name, tensor in (("x_in", x), ("level", level), ("net_out", out)):
            seen[name].append(tensor.clone())
        return out

    fixture.check(ddim_sample(denoise, x_T, SCHEDULE), "skip50/sample")
    for name, tensors in seen.items():
        fixture.check(torch.cat(tensors), f"skip50/{name}_each_step")


@torch.no_grad()
def test_sampler_without_its_last_evaluation(conformance):
    fixture = conformance("06_ddim_loop")
    net = unet(fixture, conformance("05_unet_A").weights())
    calls = 0

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return net(x, level, fixture.tensor("ctx"), fixture.tensor("k_v"))

    sample = ddim_sample(denoise, fixture.tensor("skip50/x_T"), SCHEDULE, skip_last=True)
    assert calls == 19
    fixture.check(sample, "skip50/sample", fixture.tolerance("sample_if_last_evaluation_is_skipped"))


@torch.no_grad()
def test_sampler_takes_a_batch(conformance):
    fixture = conformance("06_ddim_loop")
    net = unet(fixture, conformance("05_unet_A").weights())
    ctx, k, x_T = (fixture.tensor(name) for name in ("ctx", "k_v", "skip50/x_T"))
    other = [torch.flip(tensor, [-1]) for tensor in (ctx, k, x_T)]

    def sample(ctx: Tensor, k: Tensor, x_T: Tensor) -> Tensor:
        return ddim_sample(lambda x, level: net(x, level, ctx, k), x_T, SCHEDULE)

    both = sample(*(torch.cat(pair) for pair in zip((ctx, k, x_T), other, strict=True)))
    fixture.check(both[:1], "skip50/sample")
    torch.testing.assert_close(both[1:], sample(*other), rtol=0, atol=fixture.tolerance())


# training


def test_training_step(conformance):
    fixture = conformance("16_training_step")
    net = unet(conformance("05_unet_A"), conformance("05_unet_A").weights()).train()
    x0, t, u, noise, ctx, k = (fixture.tensor(name) for name in ("x0", "t", "u", "noise", "ctx", "k_v"))
    ctx.requires_grad_()
    x_t, level = q_sample(x0, t, u, noise, SCHEDULE)
    loss = F.mse_loss(net(x_t, level.flatten(1), ctx, k), x0)
    loss.backward()
    fixture.check(loss, "loss_elbo")
    fixture.check(ctx.grad, "grad_ctx")
    parameters = dict(net.named_parameters())
    for name in (name for name in fixture.arrays if name.startswith("grad/")):
        gradient = parameters[name.removeprefix("grad/")].grad
        if fixture.arrays[name].size:
            fixture.check(gradient, name)
        else:
            assert gradient is None, f"{name}: the network never applies it"
    average = unet(conformance("05_unet_A"), conformance("05_unet_A").weights())
    before, after = fixture.under("ema_before/"), fixture.under("ema_after/")
    with torch.no_grad():
        for key, tensor in before.items():
            average.get_parameter(key).copy_(tensor)
    momentum_update(average, net, 0.999)
    for key in after:
        fixture.check(average.get_parameter(key), f"ema_after/{key}")


# checkpoints and the whole of stage 1


@pytest.fixture(scope="session")
def tiny(conformance) -> tuple[Any, Weights, Stage1]:
    fixture = conformance("07_stage1_tiny")
    weights = load_weights(fixture.folder / "stage1_tiny.ckpt")
    return fixture, weights, Stage1.from_weights(weights)


def check_uint8(fixture: Any, reflectance: Tensor, name: str, tolerance: float) -> None:
    """At most one count off, and only where the value lies within tolerance of a rounding boundary."""
    value = (reflectance.double() * 255).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    off = np.rint(value) - fixture.arrays[name]
    assert np.abs(off).max() <= 1
    assert (np.abs(value - np.floor(value) - 0.5)[off != 0] <= 255 * tolerance).all()


@pytest.mark.parametrize("i", [0, 1])  # the second is not square
def test_stage1_from_a_lightning_checkpoint(tiny, i):
    fixture, weights, stage1 = tiny
    assert weights.kind == "stage1"
    lr = fixture.tensor(f"lr{i}")
    sr = stage1.sample(lr, fixture.tensor(f"x_T{i}"))
    fixture.check(sr, f"sr_raw{i}")
    fixture.check(sr * 2 - 1, f"sample{i}", 2 * fixture.tolerance())
    fixture.check(stage1.encode(lr)[1], f"fea{i}", fixture.tolerance("fea"))
    check_uint8(fixture, sr, f"sr_uint8{i}", fixture.tolerance())
    check_uint8(fixture, lr, f"lr_uint8{i}", fixture.tolerance())
    assert np.abs(sr.numpy() * 2 - 1 - fixture.arrays[f"sample_non_ema{i}"]).max() > 0.01, "samples with ema, not model"


def test_fused_stage1_from_a_lightning_checkpoint(tiny):
    fixture, weights, _ = tiny
    stage1 = Stage1.from_weights(weights)
    fuse(stage1)
    fixture.check(stage1.sample(fixture.tensor("lr0"), fixture.tensor("x_T0")), "sr_raw0")


@torch.no_grad()
def test_stage1_context_of_a_lightning_checkpoint(tiny):
    fixture, _, stage1 = tiny
    ctx, rgb = stage1.encoder((fixture.tensor("lr0") - 0.5) / 0.5)
    fixture.check(ctx, "ctx0", fixture.tolerance("ctx"))
    fixture.check(rgb, "rrdb_out0", fixture.tolerance("ctx"))


def test_stage1_without_its_last_evaluation(tiny):
    fixture, _, stage1 = tiny
    sr = stage1.sample(fixture.tensor("lr0"), fixture.tensor("x_T0"), skip_last=True)
    fixture.check(sr, "sr_raw0", fixture.tolerance("sample_if_last_evaluation_is_skipped"))


def test_stage1_takes_a_batch(tiny):
    fixture, _, stage1 = tiny
    lr, x_T = fixture.tensor("lr0"), fixture.tensor("x_T0")
    sr = stage1.sample(torch.cat([lr.flip(-1), lr]), torch.cat([x_T.flip(-2), x_T]))
    fixture.check(sr[1:], "sr_raw0")


def test_training_layout_takes_every_key_of_a_lightning_checkpoint(tiny):
    fixture, weights, small = tiny
    stage1 = Stage1(small.config, training=True)
    load_into(stage1, weights)
    assert all(torch.equal(a, b) for a, b in zip(stage1.ema.parameters(), small.ema.parameters(), strict=True))
    x_T = fixture.tensor("x_T0")
    assert stage1.eval().sample(fixture.tensor("lr0"), x_T).shape == x_T.shape


def test_own_safetensors_state_their_sizes(tiny, tmp_path):
    fixture, _, stage1 = tiny
    path = tmp_path / "stage1.safetensors"
    save_file(stage1.state_dict(), path, metadata={"config": json.dumps(stage1.config.to_dict())})
    again = Stage1.from_weights(load_weights(path))
    assert again.config == stage1.config
    fixture.check(again.sample(fixture.tensor("lr0"), fixture.tensor("x_T0")), "sr_raw0")


def test_small_configuration_samples_on_the_low_resolution_grid():
    stage1, lr = Stage1(SMALL), torch.rand(2, 3, 6, 9)
    assert Stage1Config.from_dict(SMALL.to_dict()) == SMALL
    assert stage1.sample(lr, torch.randn(2, 3, 24, 36)).shape == (2, 3, 24, 36)
    conditioning = stage1.ema.prepare(*stage1.encode(lr), (24, 36))
    assert conditioning.context.shape[-2:] == lr.shape[-2:]


def test_layout_of_the_published_networks(conformance):
    expected = {e["key"]: (tuple(e["shape"]), e["dtype"]) for e in conformance.layout()["stage1_large"]["entries"]}
    with torch.device("meta"):
        training, inference = Stage1(PUBLISHED, training=True), Stage1(PUBLISHED)
    got = {
        key: (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in training.state_dict().items()
    }
    assert got == expected
    groups = ("encoder.", "E.encoder_q.", "ema.")
    assert set(inference.state_dict()) == {key for key in expected if key.startswith(groups)}
    assert sum(p.numel() for p in inference.ema.parameters()) == 129_042_060
    assert sum(p.numel() for p in inference.encoder.parameters()) == 16_697_987


@torch.no_grad()
def test_stage1_in_full_size(conformance):
    fixture = conformance("17_full_large_stage1")
    with torch.device("meta"):
        stage1 = Stage1(PUBLISHED)
    stage1 = stage1.to_empty(device="cpu")
    conformance.fill(stage1, fixture)
    lr, x_T = fixture.tensor("lr"), fixture.tensor("x_T")
    ctx, fea = stage1.encode(lr)
    fixture.check(fea, "fea")
    fixture.check(ctx, "ctx")
    fixture.check(stage1.encoder((lr - 0.5) / 0.5)[1], "rrdb_out", fixture.tolerance("ctx"))
    conditioning = stage1.ema.prepare(ctx, fea, x_T.shape[-2:])
    fixture.check(stage1.ema.denoise(x_T, torch.tensor([[0.5]]), conditioning), "unet_out_level0.5")
    seen: list[Tensor] = []

    def denoise(x: Tensor, level: Tensor) -> Tensor:
        seen.append(x.clone())
        return stage1.ema.denoise(x, level, conditioning)

    sample = ddim_sample(denoise, x_T, SCHEDULE)
    fixture.check(seen[10], "x_after_10_steps")
    fixture.check(sample, "sample")
    fixture.check(sample * 0.5 + 0.5, "sr")


def test_genuine_lightning_pickle(conformance):
    fixture = conformance("20_lightning_pickle")
    weights = load_weights(fixture.folder / "last.ckpt")
    assert weights.kind == "unknown"
    assert set(weights.state_dict) == {name.replace("/", ".") for name in fixture.arrays}
    for name in fixture.arrays:
        tensor = weights.state_dict[name.replace("/", ".")]
        assert tensor.dtype == fixture.tensor(name).dtype
        fixture.check(tensor, name)
    assert weights.hyper_parameters == read_hparams((fixture.folder / "hparams.yaml").read_text())
    assert types_in(weights.hyper_parameters) <= {dict, list, tuple, str, int, float, bool, type(None)}


def read_hparams(text: str) -> Any:
    """Lightning's hparams.yaml with its EasyDict tags as plain dictionaries."""

    class Loader(yaml.SafeLoader):
        pass

    def easydict(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Any:
        return loader.construct_mapping(node, deep=True).get("dictitems", {})

    Loader.add_constructor("tag:yaml.org,2002:python/object/new:easydict.EasyDict", easydict)
    return yaml.load(text, Loader)


def types_in(value: Any) -> set[type]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {type(value)}.union(*(types_in(entry) for entry in inside))
