"""How the networks run on a GPU: as one CUDA graph instead of thousands of launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Runs before a recording, in which libraries choose algorithms and allocate their workspaces.
_WARM_UPS = 2


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Recorded:
    """A function of tensors, recorded as a CUDA graph at its first call and replayed: one launch, no Python.

    The function must not read a tensor's values, and its output must depend on its inputs only. A call with other
    shapes replaces the recording and frees its memory.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        self._key: tuple[Any, ...] = ()
        self._recording: _Recording | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the function; inputs may be on the CPU, and are copied without waiting if they are pinned."""
        key = tuple((x.shape, x.dtype) for x in inputs)
        if self._recording is None or key != self._key:
            self._recording = None
            self._recording, self._key = self._record(inputs), key
        for held, x in zip(self._recording.inputs, inputs, strict=True):
            held.copy_(x, non_blocking=True)
        self._recording.graph.replay()
        return self._recording.output.clone()  # the next replay overwrites it

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        held = tuple(x.to(self._device, copy=True) for x in inputs)
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._function(*held)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._function(*held)
        return _Recording(graph, held, output)
