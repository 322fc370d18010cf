"""How the networks run: on CPUs chip by chip; on GPUs as one CUDA graph instead of thousands of launches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Runs before a recording, in which libraries choose algorithms and allocate their workspaces.
_WARM_UPS = 2


def exact() -> None:
    """Let this process's GPUs compute the same every time: float32 is float32, and no algorithm is picked by timing.

    By default cuDNN rounds what it multiplies to TF32's 10 bits of mantissa, a thousandth.
    """
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


class ChipByChip:
    """A function of batches on a CPU, called for one chip at a time, with one thread for each.

    Libraries choose kernels, and split sums, by the size of the batch, the number of threads and where in memory an
    image begins. Here these are always the same: with one torch on one kind of processor a chip's bits depend neither
    on its batch nor on `torch.set_num_threads`, which says how many chips are computed side by side. That costs no
    time, as long as there are as many chips as threads.

    The function takes and returns tensors whose first axis is the batch. It is called from several threads at once.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the function, without gradients; inputs in any memory layout."""
        threads, chips = torch.get_num_threads(), [tuple(x[i] for x in inputs) for i in range(len(inputs[0]))]
        if threads == 1:
            return torch.cat([self._alone(chip) for chip in chips])
        try:
            with ThreadPoolExecutor(min(threads, len(chips)), "chip", torch.set_num_threads, (1,)) as pool:
                return torch.cat(list(pool.map(self._alone, chips)))
        finally:
            torch.set_num_threads(threads)  # the pool's threads have also set what threads of the future begin with

    @torch.inference_mode()
    def _alone(self, chip: tuple[Tensor, ...]) -> Tensor:
        """The function of a batch of one, in memory of its own."""
        return self._function(*(x.clone(memory_format=torch.contiguous_format)[None] for x in chip))


class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class Recorded:
    """A function of tensors, recorded as a CUDA graph at its first call and replayed: one launch, no Python.

    The function must not read a tensor's values, and its output must depend only on its inputs and on `settings`. A
    call with other shapes or settings replaces the recording and frees its memory.
    """

    def __init__(
        self, function: Callable[..., Tensor], device: torch.device, settings: Callable[[], Any] = lambda: None
    ) -> None:
        self._function, self._device, self._settings = function, device, settings
        self._key: tuple[Any, ...] = ()
        self._recording: _Recording | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the function; inputs may be on the CPU, and are copied without waiting if they are pinned.

        All of it is on the current stream, in this order: what the graph reads is overwritten when its replay before
        has ended, and its output is copied before the next. Nothing waits for the device.
        """
        key = (self._settings(), *((x.shape, x.dtype) for x in inputs))
        if self._recording is None or key != self._key:
            self._recording = None
            self._recording, self._key = self._record(inputs), key
        for held, x in zip(self._recording.inputs, inputs, strict=True):
            held.copy_(x, non_blocking=True)
        self._recording.graph.replay()
        return self._recording.output.clone()  # the next replay overwrites it

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        held = tuple(x.to(self._device, copy=True) for x in inputs)
        current, side = torch.cuda.current_stream(self._device), torch.cuda.Stream(self._device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._function(*held)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may allocate meanwhile. A recording that fails leaves its own stream the current one.
            with torch.cuda.stream(current), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = self._function(*held)
        except RuntimeError as error:
            raise out_of_memory_in(error) or error from None
        return _Recording(graph, held, output)


def out_of_memory_in(error: BaseException) -> torch.OutOfMemoryError | None:
    """The lack of memory that an error came of: what it breaks, as a recording, may end with an error of its own."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, torch.OutOfMemoryError):
        found = found.__cause__ or found.__context__
    return found
