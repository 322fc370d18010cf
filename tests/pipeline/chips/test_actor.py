"""What of a batch reaches the models, in what form, and where what they make of it comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from repeating_model import PX, actor, read

from difffusr.kernels.bands import BANDS, GROUPS, SCALE
from difffusr.kernels.sampling.settings import Sampling
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.batch import Batch


def enlarged(batch: Batch, i: int) -> np.ndarray:
    return batch["dn10"][i, 0].repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def test_dn_become_the_nearest_float32_reflectance_and_come_back_as_they_were():
    resolver, batch = actor(2), read(2)
    out = resolver(batch)
    (given,) = resolver.model.given
    for gsd in GROUPS:
        assert given[gsd].dtype == torch.float32
        assert np.array_equal(given[gsd].numpy(), batch[f"dn{gsd}"].astype(np.float32) / np.float32(1e4))
    assert out["dn"].dtype == np.uint16
    for i in range(2):
        assert np.array_equal(out["dn"][i], np.broadcast_to(enlarged(batch, i), out["dn"][i].shape))


def test_a_chip_that_shows_nothing_never_reaches_the_model_and_comes_out_empty():
    resolver, batch = actor(2), read(4)
    batch["quality"][1] = 0
    out = resolver(batch)
    assert [len(bands[10]) for bands in resolver.model.given] == [2, 1]
    assert np.array_equal(resolver.model.given[0][10][1].numpy(), batch["dn10"][2].astype(np.float32) / np.float32(1e4))
    assert not out["dn"][1].any()
    assert not any(out["error"])
    for i in (0, 2, 3):
        assert np.array_equal(out["dn"][i, 5], enlarged(batch, i)), i


@pytest.mark.parametrize(("device", "given"), [("meta", 4), ("cpu", 3)])
def test_a_batch_that_is_not_full_is_filled_up_except_on_cpus(device, given):
    resolver = actor(4)
    resolver.device = torch.device(device)
    made = resolver.super_resolve(read(3), [0, 1, 2])
    assert len(resolver.model.given[0][10]) == given
    assert len(made["dn"]) == 3


def test_where_no_chip_shows_anything_the_model_is_not_called():
    resolver, batch = actor(2), read(3)
    batch["quality"][:] = 0
    out = resolver(batch)
    assert not resolver.model.given
    assert out["dn"].shape == (3, len(BANDS), PX * SCALE, PX * SCALE)
    assert not out["dn"].any()


def test_without_diffusion_no_noise_is_made(monkeypatch):
    resolver, batch = actor(1), read(1)
    resolver.model.sampling = Sampling(solver="none")
    monkeypatch.setattr(resolver, "noise", lambda *_: pytest.fail("noise for nobody"))
    assert resolver(batch)["dn"].any()


def test_a_device_that_is_out_of_memory_gets_half_the_batch(monkeypatch):
    model = object.__new__(SuperResolver)
    model.batch, model.samples, model.device = 8, 0, "a device"
    asked: list[int] = []

    def super_resolve(batch: Batch, chosen: list[int]) -> Batch:
        asked.append(len(chosen))
        if len(chosen) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return {"dn": np.full((len(chosen), 12, 8, 8), 7, np.uint16)}

    monkeypatch.setattr(model, "super_resolve", super_resolve)
    batch = {"error": np.array([""] * 7, dtype=object), "quality": np.ones((7, 2, 2), np.uint8)}
    out = model(batch)
    assert asked == [7, 4, 2, 2, 2, 1]
    assert (out["dn"] == 7).all()
    assert not any(out["error"])
    model(batch)
    assert asked[6:] == [2, 2, 2, 1]  # it is remembered


def test_a_chip_that_does_not_fit_alone_fails_with_what_to_do(monkeypatch):
    model = object.__new__(SuperResolver)
    model.batch, model.samples, model.device = 1, 0, "a device"

    def super_resolve(batch: Batch, chosen: list[int]) -> Batch:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(model, "super_resolve", super_resolve)
    out = model({"error": np.array([""], dtype=object), "quality": np.ones((1, 2, 2), np.uint8)})
    assert "lower grid.chip_px" in out["error"][0]
