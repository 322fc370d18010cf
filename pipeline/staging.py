"""Staged chips, the ledger of a run: a chip is done when its one object exists."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numcodecs
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from pipeline.errors import StoreError
from pipeline.storage import Storage

_FOLDER = "chips"

#: Bit-shuffled zstd: of the codecs tried on such data the fastest to write and the smallest.
_CODEC = numcodecs.Blosc(cname="zstd", clevel=3, shuffle=numcodecs.Blosc.BITSHUFFLE)


@dataclass(frozen=True)
class StagedChip:
    """A chip as the assembly needs it.

    Attributes:
        dn: (12, S, S) uint16 reflectance × 10⁴ at 2.5 m, bands in `BANDS` order.
        quality: (S/4, S/4) uint8 on the 10 m grid, 0 where there is no data.
        source: (S/4, S/4) uint16 on the 10 m grid: which of the chip's own scenes, 1 for the best, 0 for none.
        std: (12, S, S) uint16 standard deviation of the samples' reflectance, in units of `actor.STD_SCALE`, at most
            65534; None in a run without uncertainty.
    """

    dn: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    std: NDArray[np.uint16] | None = None


def write_chip(staging: Storage, object_name: str, chip: StagedChip) -> int:
    """Write a chip as one object; returns its size in bytes.

    Raises:
        StoreError: the store refuses.
    """
    packed, layout = {}, {}
    for name in ("dn", "quality", "source") if chip.std is None else ("dn", "quality", "source", "std"):
        array = np.ascontiguousarray(getattr(chip, name))
        packed[name] = np.frombuffer(_CODEC.encode(array), np.uint8)
        layout[name] = [array.dtype.str, list(array.shape)]
    data = safetensors.numpy.save(packed, {"layout": json.dumps(layout)})
    staging.write(f"{_FOLDER}/{object_name}", data)
    return len(data)


def read_chip(staging: Storage, object_name: str) -> StagedChip:
    """Read a staged chip.

    Raises:
        StoreError: the object is missing or damaged.
    """
    data = staging.read(f"{_FOLDER}/{object_name}")
    try:
        packed = dict(deserialize(data))
        (length,) = np.frombuffer(data[:8], "<u8")
        layout = json.loads(json.loads(data[8 : 8 + int(length)])["__metadata__"]["layout"])
        arrays = {
            name: np.frombuffer(_CODEC.decode(bytes(packed[name]["data"])), dtype).reshape(shape)
            for name, (dtype, shape) in layout.items()
        }
        return StagedChip(arrays["dn"], arrays["quality"], arrays["source"], arrays.get("std"))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise StoreError(
            f"{staging.url}/{_FOLDER}/{object_name}: is damaged ({error}); delete it and run again"
        ) from None


def is_staged(staging: Storage, object_name: str) -> bool:
    """Whether a chip is done. One request: ask `done_chips` of many."""
    return staging.exists(f"{_FOLDER}/{object_name}")


def delete_chip(staging: Storage, object_name: str) -> None:
    """Delete a staged chip; nothing happens when it is gone."""
    staging.delete(f"{_FOLDER}/{object_name}")


def done_chips(staging: Storage) -> set[str]:
    """Object names of all chips that are done."""
    return staging.names(_FOLDER)
