"""The actor with the shipped models: uncertainty changes no pixel, and what cannot be fused runs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difffusr.kernels.bands import GROUPS, SCALE
from difffusr.kernels.sampling.noise import ground_noise
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.storage.objects import Storage

MINIMAL: dict[str, Any] = {
    "name": "a",
    "area": {"bbox": [103.7, 17.87, 103.76, 17.97]},
    "period": {"start": "2020-02-01", "end": "2020-02-29"},
    "source": {"static_catalog": "/a/catalog.json"},
    "store": {"url": "/out/cube.zarr"},
}


def configured(compute: dict[str, Any] | None = None, **model: Any) -> RunConfig:
    return RunConfig.model_validate({**MINIMAL, "model": {"sampler_steps": 2, **model}, "compute": compute or {}})


def read_batch(chips: int = 1, px: int = 24, seed: int = 2) -> dict[str, Any]:
    """Chips side by side, half overlapping, as the reader would hand them over; one corner of each without data."""
    rng = np.random.default_rng(seed)
    batch: dict[str, Any] = {
        "name": np.array([f"chip {i}" for i in range(chips)], object),
        "error": np.array([""] * chips, object),
        "epsg": np.full(chips, 32648),
        "pixel_row": np.full(chips, -8_000),
        "pixel_col": 4_000 + np.arange(chips) * px * SCALE // 2,
        "quality": np.ones((chips, px, px), np.uint8),
        "source": np.ones((chips, px, px), np.uint16),
    }
    for gsd, bands in GROUPS.items():
        n = px * 10 // gsd
        batch[f"dn{gsd}"] = rng.integers(500, 4000, (chips, len(bands), n, n)).astype(np.uint16)
        batch[f"valid{gsd}"] = np.ones((chips, n, n), np.uint8)
        batch[f"valid{gsd}"][:, : n // 4, : n // 4] = 0
    return batch


def test_uncertainty_leaves_every_pixel_of_the_result_as_it_is():
    without = SuperResolver(configured(sampler_steps=2))(read_batch(2))
    with_it = SuperResolver(configured(sampler_steps=2, uncertainty_samples=2))(read_batch(2))
    assert "std" not in without
    assert np.array_equal(without["dn"], with_it["dn"])
    assert with_it["std"].dtype == np.uint16
    assert with_it["std"].shape == with_it["dn"].shape
    assert 0 < with_it["std"].mean() < 10_000  # below 0.1 reflectance


def staged(out: dict[str, Any], folder: Path) -> list[bytes]:
    """The bytes of each chip of a batch in the staging folder; none of one that failed."""
    objects = []
    for i, error in enumerate(out["error"]):
        chip = StagedChip(out["dn"][i], out["quality"][i], out["source"][i], out["std"][i] if "std" in out else None)
        write_chip(Storage(str(folder)), "a.chip", chip)
        objects.append(b"" if error else (folder / "chips" / "a.chip").read_bytes())
    return objects


@pytest.mark.parametrize(
    ("compute", "samples"),
    [
        ({"batch": 5}, 0),
        ({"cpus_per_actor": 2}, 0),
        ({"cpus_per_actor": 2, "batch": 1}, 0),
        ({"cpus_per_actor": 4, "batch": 3}, 2),
        ({"cpus_per_actor": 2, "batch": 5, "precision": "bfloat16"}, 2),
    ],
)
def test_a_chip_is_staged_byte_for_byte_as_if_it_were_alone(compute, samples, tmp_path):
    batch = {**read_batch(5), "skipped": np.array([False, False, True, False, False])}
    batch["error"][1], batch["quality"][3] = "unreadable", 0
    alone = {"precision": compute.get("precision", "float32")}
    threads, resolve = torch.get_num_threads(), SuperResolver(configured(alone, uncertainty_samples=samples))
    ones = [staged(resolve({name: x[[i]] for name, x in batch.items()}), tmp_path)[0] for i in range(5)]
    together = SuperResolver(configured(compute, uncertainty_samples=samples))(batch)
    torch.set_num_threads(threads)
    assert staged(together, tmp_path) == ones
    assert len(set(ones)) == 5


def test_a_chip_that_failed_passes_through():
    batch = read_batch(2)
    batch["error"][0] = "unreadable"
    out = SuperResolver(configured(uncertainty_samples=2))(batch)
    assert not out["std"][0].any()
    assert out["std"][1].any()


@pytest.mark.parametrize("sample", [0, 1, 7])
def test_overlapping_chips_have_the_same_noise_in_every_sample(sample):
    actor = SuperResolver(configured(seed=5, uncertainty_samples=8))
    left, right = actor.noise(read_batch(2), [0, 1], sample)
    half = left.shape[-1] // 2
    assert torch.equal(left[..., half:], right[..., :half])
    assert torch.equal(left, ground_noise(5, 32648, -8_000, 4_000, 96, 96, stream=sample))
    assert torch.equal(actor.noise(read_batch(2), [0, 1])[0], left) == (sample == 0)


def test_networks_that_cannot_be_fused_run_as_they_are_unless_fusing_is_asked_for(monkeypatch, tmp_path):
    def without_triton(network: Any) -> None:
        raise ImportError("no Triton\nfound here")

    monkeypatch.setattr("difffusr.kernels.model.fuse", without_triton)
    path = tmp_path / "run.yaml"
    path.write_text(
        "area: {bbox: [5, 49, 6, 50]}\nperiod: {start: 2024-06-01, end: 2024-06-30}\n"
        "source: {static_catalog: catalog.json}\nstore: {url: cube.zarr}\ngrid: {chip_px: 48, overlap_px: 12}\n"
    )
    config = load_config(path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert SuperResolver(config).model.execution == "eager"
    asked = config.model_copy(update={"compute": config.compute.model_copy(update={"execution": "fused"})})
    with pytest.raises(DifffusrError, match=r"cannot be fused here \(no Triton\); set compute.execution to 'eager'"):
        SuperResolver(asked)


def test_an_actor_lets_no_gpu_round_float32_or_pick_algorithms_by_timing():
    switches = (
        (torch.backends.cudnn, "allow_tf32", True),
        (torch.backends.cuda.matmul, "allow_tf32", True),
        (torch.backends.cudnn, "benchmark", True),
        (torch.backends.cudnn, "deterministic", False),
    )
    before = [getattr(place, name) for place, name, _ in switches]
    try:
        for place, name, value in switches:
            setattr(place, name, value)
        SuperResolver(configured())
        assert [getattr(place, name) for place, name, _ in switches] == [not value for *_, value in switches]
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def test_an_actor_that_asked_for_no_gpu_uses_none_that_it_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert SuperResolver(configured({"gpus_per_actor": 0})).device.type == "cpu"
