"""The batch of a run: one chip a core, what the configuration says, or what the actors agree on on a GPU."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from difffusr.kernels.model import load_model
from difffusr.pipeline.chips.actor import SuperResolver
from difffusr.pipeline.chips.batch_size import CONTEXT, LARGEST, Agreement, chips_of_a_call, fitting
from difffusr.pipeline.chips.device import OnCores
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage.objects import Storage

GPU = ("NVIDIA H100 80GB HBM3", 80 << 30)


@pytest.mark.parametrize(
    ("compute", "gpus", "batch", "idle"),
    [
        ({}, 0.0, 1, 0),
        ({"cpus_per_actor": 4}, 0.0, 4, 0),
        ({"cpus_per_actor": 4, "batch": 1}, 0.0, 1, 3),
        ({"cpus_per_actor": 2, "batch": 3}, 0.0, 3, 0),
        ({"batch": 3}, 1.0, 3, 0),
        ({"cpus_per_actor": 4, "batch": 1}, 1.0, 1, 0),
        ({}, 1.0, LARGEST, 0),
        ({"cpus_per_actor": 4}, 0.25, LARGEST, 0),
    ],
)
def test_on_cores_it_is_one_chip_a_core_and_a_number_that_is_given_stays(loaded, caplog, compute, gpus, batch, idle):
    assert chips_of_a_call(loaded(compute=compute), gpus) == batch
    assert [f"leaves {idle} cores of each actor idle" in said for said in caplog.messages] == [True] * (idle > 0)


@pytest.mark.parametrize(
    ("memory", "batch"), [(10_000, 16), (1_700, 16), (1_699, 8), (500, 4), (300, 2), (250, 1), (100, 1), (-5, 1)]
)
def test_the_largest_batch_that_fits_is_taken_and_one_chip_where_none_does(memory, batch):
    assert fitting(lambda size: 100 + 100 * size, memory) == batch


def agreement(folder: Any, loaded: Any, *on: Any, **compute: Any) -> Agreement:
    made = Agreement.of(loaded(compute=compute), Storage(str(folder)))
    return made.on(*(on or ("f" * 64, "fused", *GPU)))


def test_what_one_actor_found_is_what_all_others_take(loaded, tmp_path):
    ours, theirs = agreement(tmp_path, loaded), agreement(tmp_path, loaded)
    assert ours.remembered() is None
    assert theirs.settled(8) == 8
    assert ours.settled(16) == 8
    assert agreement(tmp_path, loaded).remembered() == 8


def test_of_actors_that_race_one_is_heard(loaded, tmp_path):
    one = agreement(tmp_path, loaded)
    with ThreadPoolExecutor(8) as pool:
        agreed = set(pool.map(one.settled, [16, 8, 4, 2] * 4))
    assert agreed == {one.remembered()}


@pytest.mark.parametrize(
    ("on", "compute"),
    [
        (("e" * 64, "fused", *GPU), {}),
        (("f" * 64, "eager", *GPU), {}),
        (("f" * 64, "fused", "Tesla T4", 16 << 30), {}),
        (("f" * 64, "fused", GPU[0], 40 << 30), {}),
        (("f" * 64, "fused", *GPU), {"gpus_per_actor": 0.5}),
    ],
)
def test_another_gpu_model_or_share_has_a_number_of_its_own(loaded, tmp_path, on, compute):
    agreement(tmp_path, loaded).settled(16)
    other = agreement(tmp_path, loaded, *on, **compute)
    assert other.remembered() is None
    assert other.settled(2) == 2
    assert len(Storage(str(tmp_path)).names("batch")) == 2


def test_an_actor_plans_with_its_share_of_four_fifths_of_the_memory(loaded, tmp_path):
    whole = agreement(tmp_path, loaded).bytes
    assert whole == 0.8 * GPU[1] - CONTEXT
    assert agreement(tmp_path, loaded, gpus_per_actor=0.25).bytes == 0.2 * GPU[1] - CONTEXT
    assert agreement(tmp_path, loaded, gpus_per_actor=2).bytes == whole  # it computes on one of them


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"batch": 0}', b'{"batch": "many"}', b'{"rates": 1}'])
def test_a_damaged_note_is_named(loaded, tmp_path, said):
    one = agreement(tmp_path, loaded)
    one.settled(4)
    (file,) = (tmp_path / "batch").iterdir()
    file.write_bytes(said)
    with pytest.raises(StoreError, match=rf"{file.name}: cannot be understood .*; delete it, and run again"):
        one.remembered()


# ---- an actor that starts -------------------------------------------------------------------------------------------


class Small(SuperResolver):
    """An actor on something that is called a GPU, with room for so many chips at a time."""

    room = 16

    def __init__(self, config: Any, agreement: Any) -> None:
        self.tried: list[int] = []
        self.device, self.lane = torch.device("cpu"), OnCores()
        self.batch, self.seed, self.samples, self.agreement = 1, 0, 0, agreement
        self.lane.beside = True
        self.model = self._load_as_on_gpu(config)

    def _load_as_on_gpu(self, config: Any) -> Any:
        model = type("Model", (), {"fingerprint": "f" * 64, "execution": "fused"})()
        return self._tried_out(config.grid.chip_px, lambda device: model)

    def super_resolve(self, batch: Any, chosen: list[int]) -> Any:
        self.tried.append(len(chosen))
        if len(chosen) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        return {}

    def _bytes_needed(self, load: Any, side: int, size: int) -> int:
        return size << 30


@pytest.fixture
def started(loaded, tmp_path, monkeypatch):
    def start(room: int, gib: int = 80) -> Small:
        monkeypatch.setattr("difffusr.pipeline.chips.actor.device_facts", lambda: (GPU[0], gib << 30))
        config = loaded(grid={"chip_px": 24, "overlap_px": 6})
        kind = type("Small", (Small,), {"room": room})
        return kind(config, Agreement.of(config, Storage(str(tmp_path))))

    return start


@pytest.mark.parametrize(
    ("room", "gib", "batch", "tried"),
    [
        (16, 80, 16, [16, 16]),
        (9, 80, 8, [16, 16, 8, 8]),
        (16, 12, 8, [8, 8]),  # by the count of bytes
        (3, 12, 2, [8, 8, 4, 4, 2, 2]),
        (0, 80, 1, [16, 16, 8, 8, 4, 4, 2, 2, 1, 1]),  # each chip will say so
    ],
)
def test_an_actor_starts_with_what_should_fit_and_tries_whether_it_does(started, tmp_path, room, gib, batch, tried):
    actor = started(room, gib)
    assert (actor.batch, actor.tried) == (batch, tried)
    (name,) = Storage(str(tmp_path)).names("batch")
    assert json.loads((tmp_path / "batch" / name).read_text()) == {"batch": batch}


def test_what_is_remembered_is_tried_and_nothing_else(started):
    started(9)
    assert started(16).tried == [8, 8]


def test_what_is_remembered_and_fits_no_more_is_said(started, caplog):
    started(16)
    assert not [said for said in caplog.messages if "agreed" in said]
    late = started(5)
    assert late.batch == 4
    (said,) = [said for said in caplog.messages if "agreed" in said]
    assert "batches of 16" in said
    assert "4 chips at a time" in said
    assert started(16).batch == 16  # the others keep the number


def test_an_actor_that_is_second_takes_the_smaller_number_of_the_first_and_tries_it(started, monkeypatch):
    remembered = Agreement.remembered
    started(4)
    answers = iter([None])  # it looked before the first had written
    monkeypatch.setattr(Agreement, "remembered", lambda self: next(answers, remembered(self)))
    second = started(16)
    assert second.batch == 4
    assert second.tried == [16, 16, 4, 4]


@pytest.mark.parametrize(("execution", "samples"), [pytest.param("eager", 2, marks=pytest.mark.slow), ("fused", 0)])
def test_the_bytes_of_a_batch_are_counted_without_a_device(execution, samples):
    actor = object.__new__(SuperResolver)
    actor.device, actor.seed, actor.samples = torch.device("cpu"), 0, samples

    def load(device: Any) -> Any:
        return load_model("small", device=device, execution=execution)

    one, two, four = (actor._bytes_needed(load, 24, size) for size in (1, 2, 4))
    assert two - one == pytest.approx((four - two) / 2, rel=0.05)
    result = 12 * 96 * 96 * 4
    assert 4 * result < two - one < 30 * result * (1 + samples)
    weights = sum(w.nbytes for part in (load("cpu").stage1, load("cpu").fusion) for w in part.parameters())
    assert one > weights
