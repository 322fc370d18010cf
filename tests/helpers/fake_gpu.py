"""A GPU that computes nothing: it writes down what is given to which of its queues, and what the host waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.log.append((self.name, f"waits for {other.name}"))


class FakeEvent:
    def __init__(self, cuda: FakeCuda, blocking: bool) -> None:
        assert blocking, "the host would spin"
        self.cuda, self.number = cuda, cuda.events
        cuda.events += 1

    def record(self, stream: FakeStream) -> None:
        self.cuda.log.append((stream.name, f"event {self.number}"))

    def synchronize(self) -> None:
        self.cuda.log.append(("host", f"waits for event {self.number}"))


class FakeGraph:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def replay(self) -> None:
        self.cuda.log.append((self.cuda.current.name, "replay"))


class FakeCuda:
    """Stands for `torch.cuda`. Attributes: `log` of (queue or "host", what)."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.events = self.streams = 0
        self.current = FakeStream(self, "compute")
        self.modes: list[str] = []

    def Stream(self, device: Any = None) -> FakeStream:  # noqa: N802
        self.streams += 1
        return FakeStream(self, f"queue {self.streams}")

    def Event(self, blocking: bool = False) -> FakeEvent:  # noqa: N802
        return FakeEvent(self, blocking)

    def CUDAGraph(self) -> FakeGraph:  # noqa: N802
        return FakeGraph(self)

    def current_stream(self, device: Any = None) -> FakeStream:
        return self.current

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: FakeGraph, capture_error_mode: str = "global") -> Iterator[None]:
        self.modes.append(capture_error_mode)
        before, self.current = self.current, FakeStream(self, "recorded")
        yield  # a failure leaves that stream the current one, as PyTorch's may
        self.current = before


class Copies(TorchDispatchMode):
    """Writes copies from tensor to tensor into a fake GPU's log, with the queue that they are given to."""

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()
        self.cuda = cuda

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name == "aten::copy_":
            waiting = "" if (args[2] if len(args) > 2 else (kwargs or {}).get("non_blocking")) else ", the host waits"
            self.cuda.log.append((self.cuda.current.name, f"copy{waiting}"))
        elif name == "aten::clone":
            self.cuda.log.append((self.cuda.current.name, "clone"))
        return func(*args, **(kwargs or {}))


def host_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What pinned memory is where there is no GPU."""
    return torch.zeros(shape, dtype=dtype)
