"""Chip by chip: each alone, with one thread, in memory of its own; as many at a time as torch has threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from fake_gpu import Copies, FakeCuda, FakeStream
from torch import Tensor

from difffusr.kernels.networks.execution import ChipByChip, Recorded


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_chip_is_alone_has_one_thread_and_comes_out_in_its_place(threads, count):
    seen: list[tuple[tuple[int, ...], int, bool]] = []

    def double(x: Tensor, y: Tensor) -> Tensor:
        seen.append((tuple(x.shape), torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return 2 * x + y

    x, y = torch.rand(count, 3, 2, 2), torch.rand(count, 3, 2, 2)
    torch.set_num_threads(threads)
    assert torch.equal(ChipByChip(double)(x, y), 2 * x + y)
    assert seen == [((1, 3, 2, 2), 1, True)] * count
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2, 3])
def test_as_many_chips_are_computed_side_by_side_as_there_are_threads(threads):
    together = threading.Barrier(threads, timeout=20)  # breaks unless so many come at once

    def meet(x: Tensor) -> Tensor:
        together.wait()
        return x

    torch.set_num_threads(threads)
    assert len(ChipByChip(meet)(torch.rand(2 * threads, 1))) == 2 * threads


def _slice(x: Tensor) -> Tensor:
    return torch.cat([x, x], 1)[:, : x.shape[1]]


def _from_an_odd_byte(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape)


def _one_channel_last(x: Tensor) -> Tensor:
    return x.as_strided(x.shape, (x.stride(0), 1, *x.stride()[2:]))


LAYOUTS = {
    "as it is": lambda x: x.clone(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a slice": _slice,
    "from an odd byte": _from_an_odd_byte,
    "one channel last": _one_channel_last,
    "repeated": lambda x: x[:1].expand(2, -1, -1, -1),
}


@pytest.mark.parametrize(
    ("layout", "channels"),
    [(name, channels) for name in LAYOUTS for channels in (1, 3) if (name, channels) != ("one channel last", 3)],
)
def test_a_chip_lies_in_memory_as_if_it_were_alone_however_its_batch_lies(layout, channels):
    seen: list[tuple[tuple[int, ...], int]] = []

    def look(x: Tensor) -> Tensor:
        seen.append((x.stride(), x.data_ptr() % 64))
        return x

    x = torch.rand(2, channels, 4, 6)
    given = LAYOUTS[layout](x)
    assert torch.equal(ChipByChip(look)(given), given)
    assert seen == [((channels * 24, 24, 6, 1), 0)] * 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_chip_that_fails_says_so_and_leaves_the_number_of_threads_as_it_was(threads):
    def refuse(x: Tensor) -> Tensor:
        raise RuntimeError(f"chip {int(x)}")

    torch.set_num_threads(threads)
    with pytest.raises(RuntimeError, match="chip 0"):
        ChipByChip(refuse)(torch.arange(3)[:, None])
    assert torch.get_num_threads() == threads


# ---- recorded as a graph --------------------------------------------------------------------------------------------


@pytest.fixture
def cuda(monkeypatch) -> FakeCuda:
    fake = FakeCuda()
    for name in ("Stream", "CUDAGraph", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    return fake


def test_what_a_graph_reads_is_overwritten_after_its_replay_and_what_it_wrote_is_copied_before_the_next(cuda):
    run = Recorded(lambda x, y: x + y, torch.device("cpu"))
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    run(x, y)
    cuda.log.clear()
    with Copies(cuda):
        for _ in range(2):
            run(x, y)
    assert cuda.log == 2 * [("compute", "copy"), ("compute", "copy"), ("compute", "replay"), ("compute", "clone")]


def test_results_are_not_overwritten_by_the_next_replay(cuda):
    run = Recorded(lambda x: x + 1, torch.device("cpu"))
    first = run(torch.zeros(2))
    assert first.data_ptr() != run(torch.ones(2)).data_ptr()
    assert run._recording is not None
    assert first.data_ptr() != run._recording.output.data_ptr()


@pytest.mark.parametrize(
    ("calls", "recordings"),
    [
        ([(2, 3), (2, 3)], 1),
        ([(2, 3), (1, 3)], 2),
        ([(2, 3), (2, 4), (2, 3)], 3),
        ([(1,), (1,), (1,)], 1),
    ],
)
def test_another_shape_is_recorded_anew_and_other_threads_may_go_on_meanwhile(cuda, calls, recordings):
    run = Recorded(lambda x: x + 1, torch.device("cpu"))
    for shape in calls:
        assert run(torch.zeros(shape)).shape == shape
    assert cuda.modes == ["thread_local"] * recordings


def test_other_settings_are_recorded_anew(cuda):
    steps = 1
    run = Recorded(lambda x: x + steps, torch.device("cpu"), lambda: steps)
    assert run(torch.zeros(1)).tolist() == [1]
    steps = 2
    assert run(torch.zeros(1)).tolist() == [2]
    run(torch.zeros(1))
    assert len(cuda.modes) == 2


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("call", [1, 3])  # in a warm-up, and while it is recorded
def test_a_recording_without_enough_memory_says_so_and_leaves_the_stream_as_it_was(cuda, monkeypatch, call, masked):
    calls = 0

    def function(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            raise torch.OutOfMemoryError("out of memory")
        return x + 1

    @contextmanager
    def graph(*args: object, **kwargs: object) -> Iterator[None]:
        cuda.current = FakeStream(cuda, "recorded")
        try:
            yield
        except torch.OutOfMemoryError:
            if masked:
                raise RuntimeError("the recording is not valid") from None
            raise

    monkeypatch.setattr(torch.cuda, "graph", graph)
    run = Recorded(function, torch.device("cpu"))
    with pytest.raises(torch.OutOfMemoryError):
        run(torch.zeros(2))
    assert cuda.current.name == "compute"
    monkeypatch.setattr(torch.cuda, "graph", cuda.graph)
    assert run(torch.zeros(2)).tolist() == [1, 1]


def test_any_other_failure_of_a_recording_stays_what_it_is(cuda):
    def function(x: Tensor) -> Tensor:
        raise ValueError("no such kernel")

    with pytest.raises(ValueError, match="no such kernel"):
        Recorded(function, torch.device("cpu"))(torch.zeros(2))
