"""The published numbers, with fused and plain networks in both precisions: float32 within the stated tolerances,
bfloat16 as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import model_speed
import torch
from published_numbers import PLACE, Conformance, Fixture, unet
from torch import Tensor, nn

from difffusr.kernels.bands import GROUPS
from difffusr.kernels.networks.fused import fuse
from difffusr.kernels.networks.fusion.build import build_fusion
from difffusr.kernels.networks.fusion.frame import PUBLISHED_V1, PUBLISHED_V2, FusionConfig
from difffusr.kernels.networks.rrdb import RRDBNet
from difffusr.kernels.networks.stage1 import PUBLISHED, Stage1
from difffusr.kernels.weights.checkpoints import load_weights
from gpu.parts import NotHereError, Row, Setting, no_time, tried
from gpu.subject import device_of

#: A network's results by name of the fixture's array.
Results = Iterator[tuple[str, Tensor]]

NARROW = {
    "08_fusion_rrdb_v1": FusionConfig("v1", channels=8, blocks=1, growth=4),
    "09_fusion_mtf_v2": FusionConfig("v2", channels=8, blocks=3, growth=4),
}
FULL = {"18_full_fusion_rrdb_v1": PUBLISHED_V1, "19_full_fusion_mtf_v2": PUBLISHED_V2}


@torch.no_grad()
def rows(setting: Setting) -> Iterator[Row]:
    """A row for each fixture, precision and way to run."""
    if not (PLACE / "manifest.json").is_file():
        raise NotHereError(f"the published numbers are not at {PLACE}; the part before compares random weights")
    device, numbers = device_of(setting), Conformance()
    cases: list[tuple[str, Callable[[Fixture], nn.Module], Callable[[nn.Module, Fixture], Results], float]] = [
        ("04_rrdbnet", _rrdb, _rrdb_results, 3),
        ("05_unet_A", _unet, _unet_results, 3),
        ("05_unet_B", _unet, _unet_results, 3),
        *((name, _narrow, _branches, 3.0) for name in NARROW),
        ("07_stage1_tiny", _tiny, _samples, 5),
        ("17_full_large_stage1", _large(numbers), _large_results, 15),
        *((name, _full_fusion(numbers), _groups, 5.0) for name in FULL),
    ]
    if setting.dry:
        cases = cases[1:2] + cases[4:5]
    for name, make, compute, seconds in cases:
        fixture = numbers(name)
        for precision in ("float32", "bfloat16"):
            for way in ("plain", "fused"):
                what = f"{name} {precision} {way}"
                if not setting.has(seconds):
                    yield no_time(what)
                    continue
                yield tried(what, partial(_row, what, fixture, make, compute, precision, way, device))
                model_speed.free(device)


def _row(
    what: str,
    fixture: Fixture,
    make: Callable[[Fixture], nn.Module],
    compute: Callable[[nn.Module, Fixture], Results],
    precision: str,
    way: str,
    device: torch.device,
) -> Row:
    network = _ready(make(fixture), precision, way, device)
    return {"what": what, **_compared(fixture, compute(network, fixture), precision)}


def _ready(network: nn.Module, precision: str, way: str, device: torch.device) -> nn.Module:
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if precision == "bfloat16":
        network.lower(torch.bfloat16)
    if way == "fused":
        fuse(network)
    return network


def _compared(fixture: Fixture, results: Results, precision: str) -> Row:
    """The result that comes nearest to its tolerance, or exceeds it most; in bfloat16 the one that differs most."""
    found = [(fixture.difference(got, name), fixture.tolerance(_group(name)), name) for name, got in results]
    if precision == "bfloat16":
        difference, _, name = max(found)
        return {"difference_max": difference, "of": name, "allowed": "stated"}
    difference, limit, name = max(found, key=lambda one: one[0] / one[1])
    return {"difference_max": difference, "of": name, "allowed": f"{limit:g}", "ok": difference <= limit}


def _group(name: str) -> str:
    """The name under which a tolerance is stated: that of an array without its number."""
    return name.rstrip("0123456789") if name in ("ctx0", "ctx1") else name


def _on(network: nn.Module, fixture: Fixture, *names: str) -> list[Tensor]:
    device = next(network.parameters()).device
    return [fixture.tensor(name).to(device) for name in names]


def _rrdb(fixture: Fixture) -> nn.Module:
    network = RRDBNet(channels=16, blocks=2, growth=8)
    network.load_state_dict(fixture.weights())
    return network


def _rrdb_results(network: nn.Module, fixture: Fixture) -> Results:
    for i in (0, 1):
        ctx, rgb = network(*_on(network, fixture, f"x{i}"))
        yield f"ctx{i}", ctx
        yield f"out{i}", rgb


def _unet(fixture: Fixture) -> nn.Module:
    return unet(fixture, fixture.weights())


def _unet_results(network: nn.Module, fixture: Fixture) -> Results:
    for i in (0, 1):
        x, level, ctx, vector = _on(network, fixture, f"x{i}", f"level{i}", f"ctx{i}", f"k_v{i}")
        yield f"out{i}", network(x.contiguous(memory_format=torch.channels_last), level, ctx, vector)


def _narrow(fixture: Fixture) -> nn.Module:
    network = build_fusion(NARROW[fixture.folder.name])
    network.load_state_dict(fixture.weights())
    return network


def _branches(network: Any, fixture: Fixture) -> Results:
    for gsd in GROUPS:
        rgb, bands = _on(network, fixture, f"branch{gsd}/rgb", f"branch{gsd}/ms")
        yield f"branch{gsd}/out", network.branch(gsd)(rgb, bands)


def _tiny(fixture: Fixture) -> nn.Module:
    return Stage1.from_weights(load_weights(fixture.folder / "stage1_tiny.ckpt"))


def _samples(network: Any, fixture: Fixture) -> Results:
    for i in (0, 1):
        yield f"sr_raw{i}", network.sample(*_on(network, fixture, f"lr{i}", f"x_T{i}"))


def _large(numbers: Conformance) -> Callable[[Fixture], nn.Module]:
    kept: dict[str, Tensor] = {}

    def make(fixture: Fixture) -> nn.Module:
        with torch.device("meta"):
            stage1 = Stage1(PUBLISHED)
        stage1 = stage1.to_empty(device="cpu")
        if kept:
            stage1.load_state_dict(kept)
        else:
            numbers.fill(stage1, fixture)
            kept.update({name: value.clone() for name, value in stage1.state_dict().items()})
        return stage1

    return make


def _large_results(network: Any, fixture: Fixture) -> Results:
    lr, x_T = _on(network, fixture, "lr", "x_T")
    ctx, vector = network.encode(lr)
    yield "ctx", ctx
    yield "fea", vector
    conditioning = network.ema.prepare(ctx, vector, x_T.shape[-2:])
    level = torch.tensor([[0.5]], device=lr.device)
    yield "unet_out_level0.5", network.ema.denoise(x_T, level, conditioning)
    yield "sr", network.sample(lr, x_T)


def _full_fusion(numbers: Conformance) -> Callable[[Fixture], nn.Module]:
    def make(fixture: Fixture) -> nn.Module:
        network = build_fusion(FULL[fixture.folder.name])
        numbers.fill(network, fixture)
        return network

    return make


def _groups(network: Any, fixture: Fixture) -> Results:
    for gsd, out in network(*_on(network, fixture, "ms12", "fusion_signal")).items():
        yield f"out{gsd}", out
