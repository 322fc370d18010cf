"""Staged chips, the ledger of a run: a chip is done when its one object exists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.storage import Storage

_FOLDER = "chips"

# An object is a safetensors file: the length of a JSON header in 8 bytes, the header, and each array as a stream of
# bytes at the place that the header gives. Its own package would copy the streams twice each way, which takes as long
# as decoding them.

#: Bit-shuffled lz4. A staged chip lives for minutes: on super-resolved pixels this is written four times and read twice
#: as fast as bit-shuffled zstd at level 3, and 6 % larger. Blosc's streams name their codec, so any of them is read.
CODEC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)


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
    header: dict[str, Any] = {}
    layout, streams, begin = {}, [], 0
    for name in ("dn", "quality", "source") if chip.std is None else ("dn", "quality", "source", "std"):
        array = np.ascontiguousarray(getattr(chip, name))
        stream = CODEC.encode(array)
        layout[name] = [array.dtype.str, list(array.shape)]
        header[name] = {"dtype": "U8", "shape": [len(stream)], "data_offsets": [begin, begin + len(stream)]}
        streams.append(stream)
        begin += len(stream)
    header["__metadata__"] = {"layout": json.dumps(layout)}
    head = json.dumps(header).encode()
    data = b"".join([len(head).to_bytes(8, "little"), head, *streams])
    staging.write(f"{_FOLDER}/{object_name}", data)
    return len(data)


def read_chip(staging: Storage, object_name: str) -> StagedChip:
    """Read a staged chip.

    Raises:
        StoreError: the object is missing or damaged.
    """
    data = memoryview(staging.read(f"{_FOLDER}/{object_name}"))
    try:
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:begin]))
        layout = json.loads(header.pop("__metadata__")["layout"])
        places = {name: entry["data_offsets"] for name, entry in header.items()}
        if begin + max(stop for _, stop in places.values()) != len(data):
            raise ValueError("it has another length than its header says")
        arrays = {}
        for name, (dtype, shape) in layout.items():
            start, stop = places[name]
            arrays[name] = np.empty(shape, dtype)
            CODEC.decode(data[begin + start : begin + stop], out=arrays[name])
        return StagedChip(arrays["dn"], arrays["quality"], arrays["source"], arrays.get("std"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
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
