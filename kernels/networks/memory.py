"""How much memory the models take on a GPU, counted without one.

They run as they are on PyTorch's meta device, which knows shapes and no values, under a mode that sees every tensor
made and released. Nothing is listed by hand: what the code holds is what is counted, for weights of any sizes, in
either execution and precision. It takes about a second, however large the images.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: PyTorch's allocator gives out multiples of so many bytes.
_GRAIN = 512


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that were made under it: of those that still live, and the most that ever did at a time.

    A tensor lives as long as its storage: views count once. Only storages of one type of device count. What a kernel
    needs for itself, a library's workspace, is not seen.
    """

    def __init__(self, device_type: str = "meta") -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device_type = device_type
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self._count(made)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if tensor.device.type != self._device_type or storage in self._seen:
            return
        self._seen.add(storage)
        size = -(-storage.nbytes() // _GRAIN) * _GRAIN
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._released, size)

    def _released(self, size: int) -> None:
        self.now -= size
