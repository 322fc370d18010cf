"""What this project uses of safetensors to read, for machines that lack it: 8 bytes of length, JSON, then tensors."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
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
        except (struct.error, ValueError) as error:
            raise SafetensorError(str(error)) from None
        self._metadata = self._entries.pop("__metadata__", None)
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
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._content[begin:end], dtype=dtype).reshape(shape)
