"""What this project uses of safetensors to read, for machines that lack it: 8 bytes of length, JSON, then tensors."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import torch as pytorch  # `torch` is a module of this package
from torch import Tensor

_DTYPES = {
    "F64": pytorch.float64, "F32": pytorch.float32, "F16": pytorch.float16, "BF16": pytorch.bfloat16,
    "I64": pytorch.int64, "I32": pytorch.int32, "I16": pytorch.int16, "I8": pytorch.int8, "U8": pytorch.uint8,
    "BOOL": pytorch.bool,
}  # fmt: skip


class SafetensorError(Exception):
    """The file is none of this format."""


class safe_open:  # noqa: N801 - the package's name
    """A file, as the package opens it for torch on the CPU."""

    def __init__(self, path: str | Path, framework: str, device: str = "cpu") -> None:
        content = Path(path).read_bytes()
        try:
            (length,) = struct.unpack("<Q", content[:8])
            self._entries: dict[str, Any] = json.loads(content[8 : 8 + length])
            self._metadata = self._entries.pop("__metadata__", None)
        except (struct.error, ValueError, AttributeError, TypeError) as error:  # its JSON may be anything
            raise SafetensorError(str(error)) from None
        self._content = bytearray(content[8 + length :])

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        self._content = bytearray()

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._entries)

    def metadata(self) -> dict[str, str] | None:
        """The strings of the header."""
        return self._metadata

    def get_tensor(self, name: str) -> Tensor:
        """One of them."""
        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        shape, dtype = entry["shape"], _DTYPES.get(entry["dtype"])
        if dtype is None or end - begin != math.prod(shape) * dtype.itemsize or end > len(self._content):
            raise SafetensorError(f"{name}: its {entry['dtype']} values are not all there")
        if begin == end:
            return pytorch.empty(shape, dtype=dtype)
        return pytorch.frombuffer(self._content[begin:end], dtype=dtype).reshape(shape)
