"""Staged chips, the ledger of a run: a chip is done when its one object exists."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numcodecs
import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.geo import is_staged_name
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage

_FOLDER = "chips"

#: Bit-shuffled lz4. A staged chip lives for minutes: on super-resolved pixels this writes four times and reads twice as
#: fast as bit-shuffled zstd at level 3, and is 6 % larger. Blosc streams name their codec: any of them can be read.
CODEC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)

#: Parts, of as many rows each, in which every band is packed: a shard needs only some rows of the chips at its edge.
_PARTS = 4


@dataclass(frozen=True)
class StagedChip:
    """A chip as the assembly needs it.

    Attributes:
        dn: (12, S, S) uint16 reflectance × 10⁴ at 2.5 m, bands in `BANDS` order.
        quality: (S/4, S/4) uint8 on the 10 m grid, 0 where there is no data.
        source: (S/4, S/4) uint16 on the 10 m grid: which of the chip's own scenes, 1 for the best, 0 for none.
        std: (12, S, S) uint16 standard deviation of the samples' reflectance, in units of 1 / `STD_SCALE`, at most
            65534; None in a run without uncertainty.
        looks: (S/4, S/4) uint8 on the 10 m grid, number of observations; None where pixels are of one scene.
    """

    dn: NDArray[np.uint16]
    quality: NDArray[np.uint8]
    source: NDArray[np.uint16]
    std: NDArray[np.uint16] | None = None
    looks: NDArray[np.uint8] | None = None


def write_chip(staging: Storage, object_name: str, chip: StagedChip) -> int:
    """Write a chip as one object; returns its size in bytes.

    Raises:
        StoreError: the store refuses.
    """
    header: dict[str, Any] = {}
    layout, streams, begin = {}, [], 0
    for name in (field.name for field in fields(chip)):
        if getattr(chip, name) is None:
            continue
        array = np.ascontiguousarray(getattr(chip, name))
        packed = [CODEC.encode(part) for part in _parts(array, len(array) * _PARTS if array.ndim == 3 else 1)]
        sizes = [len(stream) for stream in packed]
        layout[name] = [array.dtype.str, list(array.shape), sizes]
        header[name] = {"dtype": "U8", "shape": [sum(sizes)], "data_offsets": [begin, begin + sum(sizes)]}
        streams += packed
        begin += sum(sizes)
    header["__metadata__"] = {"layout": json.dumps(layout)}
    head = json.dumps(header).encode()
    data = b"".join([len(head).to_bytes(8, "little"), head, *streams])
    staging.write(f"{_FOLDER}/{object_name}", data)
    return len(data)


def read_chip(staging: Storage, object_name: str, rows: slice | None = None) -> StagedChip:
    """Read a staged chip.

    Args:
        rows: which rows of `dn` and `std` to read, start and stop; the others are undefined. All by default.

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
        for name, (dtype, shape, *sizes) in layout.items():
            start, stop = (begin + place for place in places[name])
            arrays[name] = np.empty(shape, dtype)
            # Objects of earlier versions have one stream for each array, without its size.
            wanted = rows if len(shape) == 3 else None
            _unpack(data[start:stop], sizes[0] if sizes else [stop - start], arrays[name], wanted)
        return StagedChip(arrays["dn"], arrays["quality"], arrays["source"], arrays.get("std"), arrays.get("looks"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise StoreError(
            f"{staging.url}/{_FOLDER}/{object_name}: is damaged ({error}); delete it and run again"
        ) from None


def _parts(array: NDArray[Any], count: int) -> NDArray[Any]:
    """(count, n) equal parts of the array, as views."""
    return array.reshape(count, -1)


def _unpack(streams: memoryview, sizes: list[int], array: NDArray[Any], rows: slice | None) -> None:
    """Decode the parts of an array, (…, h, w), that hold any of the rows."""
    begin = 0
    for number, (size, part) in enumerate(zip(sizes, _parts(array, len(sizes)), strict=True)):
        count = part.size // array.shape[-1]
        first = number * count % array.shape[-2]
        if rows is None or (first < rows.stop and rows.start < first + count):
            CODEC.decode(streams[begin : begin + size], out=part)
        begin += size


def is_staged(staging: Storage, object_name: str) -> bool:
    """Whether a chip is done. One request: use `done_chips` for many."""
    return staging.exists(f"{_FOLDER}/{object_name}")


def delete_chip(staging: Storage, object_name: str) -> None:
    """Delete a staged chip; nothing happens when it is gone."""
    staging.delete(f"{_FOLDER}/{object_name}")


def done_chips(staging: Storage) -> set[str]:
    """Object names of all chips that are done. Whatever else lies in the folder is a stranger's."""
    return {name for name in staging.names(_FOLDER) if is_staged_name(name)}
