"""Arrays that xarray reads when they are asked for, without Dask; `.chunk()` makes Dask arrays of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

#: Reads positions along each dimension: a slice of step 1 for rows and columns, increasing positions for others.
Reader = Callable[[Sequence[NDArray[np.int64]], slice, slice], NDArray[Any]]


class _Asked(BackendArray):
    """An array whose last two dimensions are rows and columns."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, read: Reader) -> None:
        self.shape, self.dtype, self._read = shape, np.dtype(dtype), read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._positions)

    def _positions(self, key: tuple[Any, ...]) -> Any:
        places = [np.atleast_1d(np.arange(size)[part]) for part, size in zip(key, self.shape, strict=True)]
        if any(len(place) == 0 for place in places):
            found = np.empty([len(place) for place in places], self.dtype)
        else:
            spans = [slice(int(place.min()), int(place.max()) + 1) for place in places[-2:]]
            others = [np.unique(place) for place in places[:-2]]
            found = self._read(others, *spans)
            for axis, (place, had) in enumerate(zip(places[:-2], others, strict=True)):
                if not np.array_equal(place, had):
                    found = found.take(np.searchsorted(had, place), axis)
            for axis, (place, span) in enumerate(zip(places[-2:], spans, strict=True), len(others)):
                if len(place) != span.stop - span.start or (np.diff(place) != 1).any():
                    found = found.take(place - span.start, axis)
        dropped = tuple(axis for axis, part in enumerate(key) if np.ndim(part) == 0 and not isinstance(part, slice))
        return found.squeeze(dropped)


def lazy_variable(
    dims: Sequence[str],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    read: Reader,
    attributes: Mapping[str, Any],
    chunk_px: int,
) -> xr.Variable:
    """A variable that is read when it is asked for.

    Args:
        dims: its dimensions, rows and columns last.
        chunk_px: side of the squares that `.chunk()` makes.
    """
    preferred = {name: size if name in dims[-2:] else 1 for name, size in zip(dims, shape, strict=True)}
    preferred |= {name: min(chunk_px, size) for name, size in zip(dims[-2:], shape[-2:], strict=True)}
    if "band" in preferred:
        preferred["band"] = shape[tuple(dims).index("band")]
    data = indexing.LazilyIndexedArray(_Asked(shape, dtype, read))
    return xr.Variable(dims, data, dict(attributes), {"preferred_chunks": preferred})
