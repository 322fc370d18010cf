"""What the server's process may take of memory, as far as libraries decide it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

#: MB of blocks of scenes that GDAL keeps: by default a twentieth of the machine's memory.
_GDAL_MB: Final = 32

#: Parameters of the C library's allocator: how many heaps there are, by default eight for each core, each of which
#: keeps what its threads have freed; and from how many bytes on an array is given back at once, by default up to 32 MB.
_PARAMETERS: Final = {"MALLOC_ARENA_MAX": (-8, 2), "MALLOC_MMAP_THRESHOLD_": (-3, 256 << 10)}


def bound_memory() -> None:
    """Bound what is kept by GDAL, unless the environment says how much, and by the C library. Has to come before the
    first raster is read and the first thread is started."""
    os.environ.setdefault("GDAL_CACHEMAX", str(_GDAL_MB))
    # Files of scenes are read through GDAL's own cache of what came over the network, not through one for each file.
    os.environ.setdefault("VSI_CACHE", "FALSE")
    with suppress(OSError, AttributeError):  # where it is not glibc
        library = ctypes.CDLL("libc.so.6")
        for name, (parameter, value) in _PARAMETERS.items():
            if name not in os.environ:
                library.mallopt(parameter, value)
