"""The way of batches through a device: what is given to which queue, what the host waits for, what memory is used."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from fake_gpu import Copies, FakeCuda, host_memory
from repeating_model import PX, actor, read

from difffusr.pipeline.chips.device import Buffers, OnCores, OnGpu


def on_gpu(cuda: FakeCuda, made: list[int] | None = None) -> OnGpu:
    def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        buffer = host_memory(shape, dtype)
        (made if made is not None else []).append(buffer.data_ptr())
        return buffer

    return OnGpu(torch.device("cpu"), cuda, pinned)


def test_the_host_waits_once_a_batch_and_not_before_the_next_is_given():
    cuda = FakeCuda()
    lane, values = on_gpu(cuda), np.arange(12, dtype=np.int16).reshape(3, 4)
    with Copies(cuda):
        first = lane.sent([{"dn": lane.given(values, [0, 1]) * 2}])
        second = lane.sent([{"dn": lane.given(values, [2, 1]) * 2}])
    assert [what for who, what in cuda.log if who == "host"] == []
    order = [
        ("queue 1", "copy"), ("compute", "waits for queue 1"), ("queue 2", "waits for compute"), ("queue 2", "copy"),
    ]  # fmt: skip
    assert cuda.log == [*order, ("queue 2", "event 0"), *order, ("queue 2", "event 1")]
    assert first.wait()[0]["dn"].tolist() == (2 * values[[0, 1]]).tolist()
    assert second.wait()[0]["dn"].tolist() == (2 * values[[2, 1]]).tolist()
    first.wait()
    assert [what for who, what in cuda.log if who == "host"] == ["waits for event 0", "waits for event 1"]


@pytest.mark.parametrize("batches", [3, 6])
def test_two_batches_under_way_take_turns_in_two_buffers_of_each_shape(batches):
    made: list[int] = []
    lane, values = on_gpu(FakeCuda(), made), np.zeros((4, 5), np.int16)
    before, places = None, []
    for _ in range(batches):
        there = lane.given(values, [0, 1, 2])
        under_way = lane.sent([{"dn": there[:, :2] + 1}])
        if before is not None:
            places.append(before.wait()[0]["dn"].ctypes.data)
        before = under_way
    assert len(made) == 4
    assert len(set(places)) == 2 or batches == 3
    assert places[::2] == places[:1] * len(places[::2])


def test_another_shape_or_type_gets_memory_of_its_own_and_fewer_rows_the_same():
    made: list[int] = []

    def pinned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        made.append(shape[0])
        return host_memory(shape, dtype)

    buffers = Buffers(pinned)
    place = buffers.lend((4, 6), torch.int16).array.ctypes.data
    assert buffers.lend((2, 6), torch.int16).array.ctypes.data == place
    assert buffers.lend((4, 6), torch.int16).array.shape == (4, 6)
    assert made == [4]
    buffers.lend((4, 6), torch.uint8), buffers.lend((4, 3, 2), torch.int16)
    assert made == [4, 4, 4]
    assert buffers.lend((5, 6), torch.int16).array.shape == (5, 6)  # the one of four rows is dropped
    buffers.lend((3, 6), torch.int16)
    assert made == [4, 4, 4, 5]


def _slice(array: Any) -> Any:
    return array[1:, ::2]


def _as_unsigned(array: Any) -> Any:
    return array.view(np.uint16)[0]


def _arrow(array: Any) -> Any:
    return pa.py_buffer(array)


@pytest.mark.parametrize("view", [_slice, _as_unsigned, _arrow, memoryview, lambda array: array])
def test_memory_is_not_used_again_while_anybody_refers_to_it(view):
    buffers = Buffers(host_memory)
    loan = buffers.lend((2, 4), torch.int16)
    place, kept = loan.array.ctypes.data, view(loan.array)
    del loan
    gc.collect()
    assert buffers.lend((2, 4), torch.int16).array.ctypes.data != place
    del kept
    gc.collect()
    assert place in {one.array.ctypes.data for one in [buffers.lend((2, 4), torch.int16) for _ in range(2)]}


def test_what_a_batch_needs_is_held_until_the_host_has_seen_its_end():
    made: list[int] = []
    lane, values = on_gpu(FakeCuda(), made), np.zeros((2, 3), np.int16)
    under_way = lane.sent([{"dn": lane.given(values, [0])}])
    del under_way  # nobody waits for it, and its copies go on
    lane.given(values, [0])
    assert len(made) == 3
    assert lane.drain()
    assert not lane.drain()
    lane.given(values, [0])
    assert len(made) == 3


@pytest.mark.parametrize("inference", [True, False])
def test_buffers_can_be_written_inside_and_outside_of_inference_mode(inference):
    lane, values = on_gpu(FakeCuda()), np.ones((2, 3), np.uint8)
    for mode in (inference, not inference):
        with torch.inference_mode(mode):
            lane.sent([{"std": lane.given(values, [0, 1]).to(torch.int16)}]).wait()


def test_arrays_of_the_cores_pass_through_both_lanes():
    array = np.ones((1, 2), np.uint16)
    for lane in (OnCores(), on_gpu(FakeCuda())):
        assert lane.sent([{"dn": array}]).wait()[0]["dn"] is array


@pytest.mark.parametrize("kind", ["some failed", "whole", "skipped", "nothing shown"])
def test_a_resolver_makes_the_same_of_a_batch_on_either_lane_and_waits_once(kind):
    outs = []
    for cuda in (None, FakeCuda()):
        resolver, batch = actor(2), read(3)
        if kind == "some failed":
            batch["error"][1] = "unreadable"
        elif kind == "skipped":
            batch["skipped"] = np.array([True, False, True])
        elif kind == "nothing shown":
            batch["quality"][:2] = 0
        if cuda is not None:
            resolver.lane = on_gpu(cuda)
        out = resolver(batch)
        assert out["dn"].shape == (3, 12, 4 * PX, 4 * PX)
        outs.append(out)
        if cuda is not None:
            assert len([who for who, _ in cuda.log if who == "host"]) == 1
    assert all(np.array_equal(outs[0][name], outs[1][name]) for name in outs[0])


def test_no_copy_of_a_batch_makes_the_host_wait():
    cuda, resolver = FakeCuda(), actor(2)
    resolver.lane = on_gpu(cuda)
    with Copies(cuda):
        resolver.resolve(read(2))
    assert not [what for _, what in cuda.log if "host" in what]
    assert [what for who, what in cuda.log if who == "queue 1"] == ["copy"] * 6
