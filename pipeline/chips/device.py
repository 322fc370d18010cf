"""How chips get to where the networks compute, and back: on this machine's cores, or on a GPU that works beside them.

A GPU has three queues of work, in each of which one thing follows the other, whatever the host does meanwhile: copies
to it, what it computes, copies from it. The batch after the next is copied while the next is computed and the results
of the last come back. The host gives a batch to all three queues at once and waits for it once, at its end, on an event
that holds up nothing behind it.

A queue does not know what another still needs. The memory that a batch's copies read and write, here and there, is
therefore held until the host has seen the batch's end, and only then used again.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: What the models made of some chips: whole numbers by name, as int16 with the bits of uint16, perhaps still to be
#: computed; or arrays of this machine.
Made = Mapping[str, Tensor | NDArray[np.uint16]]

#: The same on this machine.
Fetched = Mapping[str, NDArray[np.uint16]]


class UnderWay(Protocol):
    """A batch that was given to the device."""

    def wait(self) -> list[Fetched]:
        """Wait for its end, and return what was made, part by part. Any number of times, in any thread.

        Raises:
            RuntimeError: the device failed.
        """


class Lane(Protocol):
    """The way of a process's batches through its device. All but `UnderWay.wait` is called in one thread.

    Attributes:
        beside: whether a batch may be given to the device before the one before has ended.
    """

    beside: bool

    def given(self, values: NDArray[Any], rows: Sequence[int]) -> Tensor:
        """Some rows of an array, on the device once its turn comes."""

    def sent(self, parts: Sequence[Made]) -> UnderWay:
        """The end of a batch, whose parts are given to the device: their results come back."""

    def drain(self) -> bool:
        """Wait until no batch is under way; False where none was."""


class OnCores:
    """On this machine's cores: what was called has been computed."""

    beside = False

    def given(self, values: NDArray[Any], rows: Sequence[int]) -> Tensor:
        """See `Lane`."""
        return torch.from_numpy(values[list(rows)])

    def sent(self, parts: Sequence[Made]) -> UnderWay:
        """See `Lane`."""
        return _Ended([{name: _whole_numbers(made) for name, made in part.items()} for part in parts])

    def drain(self) -> bool:
        """See `Lane`."""
        return False


class OnGpu:
    """On a GPU, whose queues are the current stream and two more.

    Args:
        cuda: `torch.cuda`, or what stands for it.
        pinned: makes a tensor of a shape and type in memory that the GPU copies from and to by itself.
    """

    def __init__(
        self, device: torch.device, cuda: Any = torch.cuda, pinned: Callable[..., Tensor] | None = None
    ) -> None:
        self.beside = True
        self._device, self._cuda = device, cuda
        self._to, self._from = cuda.Stream(device), cuda.Stream(device)
        self._buffers = Buffers(pinned or partial(torch.empty, pin_memory=True))
        self._held: list[Any] = []  # of the batch that is being given to the device
        self._under_way: deque[_End] = deque()

    def given(self, values: NDArray[Any], rows: Sequence[int]) -> Tensor:
        """See `Lane`."""
        loan = self._buffers.lend((len(rows), *values.shape[1:]), torch.from_numpy(np.empty(0, values.dtype)).dtype)
        np.take(values, rows, axis=0, out=loan.array, mode="clip")  # of rows that are there; other modes copy twice
        with self._cuda.stream(self._to):
            there = torch.empty(loan.tensor.shape, dtype=loan.tensor.dtype, device=self._device)
            there.copy_(loan.tensor, non_blocking=True)
        self._cuda.current_stream(self._device).wait_stream(self._to)
        self._held += [loan, there]
        return there

    def sent(self, parts: Sequence[Made]) -> UnderWay:
        """See `Lane`."""
        self._from.wait_stream(self._cuda.current_stream(self._device))
        with self._cuda.stream(self._from):
            fetched: list[Fetched] = [{name: self._coming(made) for name, made in part.items()} for part in parts]
        event = self._cuda.Event(blocking=True)  # the waiting thread sleeps, instead of asking again and again
        event.record(self._from)
        end = _End(event, [*self._held, parts, fetched])
        self._held = []
        self._under_way = deque(before for before in self._under_way if not before.seen)
        self._under_way.append(end)
        return _OnItsWay(end, fetched)

    def drain(self) -> bool:
        """See `Lane`."""
        waited = [end for end in self._under_way if not end.seen]
        for end in waited:
            end.wait()
        return bool(waited)

    def _coming(self, made: Tensor | NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Where a result is once the batch has ended."""
        if not isinstance(made, Tensor):
            return made
        loan = self._buffers.lend(tuple(made.shape), made.dtype)
        loan.tensor.copy_(made, non_blocking=True)
        return loan.array.view(np.uint16)


class _Ended:
    def __init__(self, fetched: list[Fetched]) -> None:
        self._fetched = fetched

    def wait(self) -> list[Fetched]:
        """See `UnderWay`."""
        return self._fetched


class _OnItsWay:
    def __init__(self, end: _End, fetched: list[Fetched]) -> None:
        self._end, self._fetched = end, fetched

    def wait(self) -> list[Fetched]:
        """See `UnderWay`."""
        self._end.wait()
        return self._fetched


class _End:
    """The end of a batch on a GPU, and what is held until the host has seen it."""

    def __init__(self, event: Any, held: list[Any]) -> None:
        self._event, self._held = event, held
        self.seen = False

    def wait(self) -> None:
        """In any thread, any number of times."""
        if not self.seen:
            self._event.synchronize()
            self._held, self.seen = [], True


class Buffers:
    """Memory that is lent, and lent again once nobody refers to it any more. Rows of one shape share buffers: one that
    was made for more rows is lent for fewer, and a buffer has as many as the most that were asked for.

    Args:
        made: makes a tensor of a shape and a type.
    """

    def __init__(self, made: Callable[..., Tensor]) -> None:
        self._made = made
        self._most: dict[Any, int] = {}
        self._free: dict[Any, deque[Tensor]] = {}

    def lend(self, shape: tuple[int, ...], dtype: torch.dtype) -> Loan:
        """A buffer of (rows, …) whose values are undefined. In one thread; loans end in any."""
        key, rows = (shape[1:], dtype), shape[0]
        most = self._most[key] = max(rows, self._most.get(key, 0))
        free = self._free.setdefault(key, deque())
        buffer = None
        while buffer is None and free:
            candidate = free.popleft()
            buffer = candidate if len(candidate) >= rows else None  # one that is too small is dropped
        if buffer is None:
            with torch.inference_mode(False):  # such tensors could only be written in that mode again
                buffer = self._made((most, *shape[1:]), dtype=dtype)
        loan = Loan(buffer[:rows])
        weakref.finalize(loan, free.append, buffer).atexit = False
        return loan


class Loan:
    """A buffer for as long as this object, its array or a view of the array is referred to.

    Attributes:
        tensor: on this machine; does not prolong the loan.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.__array_interface__ = tensor.numpy().__array_interface__

    @property
    def array(self) -> NDArray[Any]:
        """The same memory."""
        return np.asarray(self)  # its base is this object


def _whole_numbers(made: Tensor | NDArray[np.uint16]) -> NDArray[np.uint16]:
    return made.numpy().view(np.uint16) if isinstance(made, Tensor) else made
