"""Windows of a cube, anywhere: what is inside is the array's, what is beyond is its fill value."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_cubes import appended, revised
from small_cubes import EPSG, GRID, SHARDS, drafted

from difffusr.pipeline.cube.reading import CubeReader, read_window
from difffusr.pipeline.geo.grid import PixelWindow
from difffusr.pipeline.ground.errors import StoreError

WHOLE = PixelWindow(-40, 100, 9, 7)
FILL = 65535
PLAIN = np.arange(2 * 9 * 7, dtype=np.uint16).reshape(2, 9, 7)
SPECTRAL = np.arange(2 * 3 * 9 * 7, dtype=np.uint16).reshape(2, 3, 9, 7)


def stored(values: np.ndarray, store: object = None) -> zarr.Array:
    """An array with a fill value that none of its pixels has."""
    array = zarr.create_array(
        {} if store is None else store, shape=values.shape, chunks=values.shape, dtype="uint16", fill_value=FILL
    )
    array[...] = values
    return array


ARRAYS = [(stored(values), values) for values in (PLAIN, SPECTRAL)]


@pytest.mark.parametrize(("array", "values"), ARRAYS, ids=["flat", "spectral"])
@settings(deadline=None)
@given(
    window=st.builds(PixelWindow, st.integers(-60, -20), st.integers(85, 115), st.integers(1, 30), st.integers(1, 30)),
    step=st.integers(0, 1),
)
def test_a_window_is_that_of_an_endless_array_of_fill_values(array, values, window, step):
    endless = np.full((*values.shape[1:-2], 100, 100), FILL, np.uint16)  # of rows −70 … and columns 70 …
    endless[..., 30:39, 30:37] = values[step]
    row, col = window.row + 70, window.col - 70
    expected = endless[..., row : row + window.height, col : col + window.width]
    read = read_window(array, step, window, WHOLE)
    assert read.dtype == np.uint16
    assert np.array_equal(read, expected)


def test_a_damaged_chunk_is_named(tmp_path):
    array = stored(PLAIN, tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "c" / "0" / "0" / "0").write_bytes(b"not compressed")
    with pytest.raises(StoreError, match=r"a\.zarr: cannot be read .*`difffusr verify` names damaged shards"):
        read_window(array, 0, WHOLE, WHOLE)


def test_the_cube_s_own_reader_follows_the_revisions(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    revised(storage, staging, 1, 12)
    got = CubeReader(storage, drafted(storage, 1)).read(EPSG, "source", GRID.shard_window(SHARDS[0]))
    assert set(np.unique(got).tolist()) == {12}
