"""What is kept of tiles is bound by bytes, reads at once by number, and what libraries keep by what they are told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mapped_cubes import EPSG

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.readers.view import memory
from difffusr.pipeline.readers.view.kept import Kept
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.readers.view.memory import bound_memory

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rasterio's and rioxarray's, of affine


@pytest.mark.parametrize(("most", "size", "left"), [(1000, 100, 10), (1000, 300, 3), (1000, 1000, 1), (1000, 1001, 0)])
def test_the_newest_are_kept_as_far_as_they_fit(most, size, left):
    kept, read = Kept(most), []
    for key in range(20):
        kept.get(key, lambda key=key: read.append(key) or np.zeros(size, np.uint8))
    again = []
    for key in range(19, 19 - left, -1):
        kept.get(key, lambda key=key: again.append(key) or np.zeros(size, np.uint8))
    assert (len(read), again) == (20, [])
    kept.get(19 - left, lambda: again.append("gone") or np.zeros(size, np.uint8))
    assert again == ["gone"]


def test_what_is_used_stays():
    kept = Kept(300)
    for key in ("a", "b", "c", "a", "d", "a", "e"):
        kept.get(key, lambda: np.zeros(100, np.uint8))
    kept.get("a", lambda: pytest.fail("it was used last"))


def test_who_asks_for_the_same_waits_and_who_fails_leaves_nothing():
    kept, reads, begun = Kept(10_000), [], threading.Barrier(4)

    def ask(_: int) -> int:
        begun.wait()
        return int(kept.get("one", lambda: reads.append(1) or np.arange(10))[-1])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [9] * 4
    assert len(reads) == 1
    with pytest.raises(OSError, match="no more"):
        kept.get("two", lambda: (_ for _ in ()).throw(OSError("no more")))
    assert kept.get("two", lambda: np.arange(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_than_so_many_read_at_once(most):
    kept, now, seen, guard = Kept(0, most), [0], [], threading.Lock()
    together = threading.Barrier(most)

    def read() -> np.ndarray:
        with guard:
            now[0] += 1
            seen.append(now[0])
        together.wait(10)
        with guard:
            now[0] -= 1
        return np.zeros(1)

    with ThreadPoolExecutor(3 * most) as pool:
        list(pool.map(lambda key: kept.get(key, read), range(3 * most)))
    assert max(seen) == most


@pytest.mark.parametrize("bands", [[3, 2, 1], [11, 8, 3], [7], [0, 11], [3, 3, 3]])
@pytest.mark.parametrize("strip", [1, 1 << 20])
def test_bands_are_read_as_they_are_asked_for_in_strips_of_any_size(storage, stored, bands, strip, monkeypatch):
    from difffusr.pipeline.readers.view import levels

    monkeypatch.setattr(levels, "_STRIP_BYTES", strip)
    monkeypatch.setattr(levels, "_CHUNK_PX", 32)
    level = map_cube(Cube(storage)).zones[EPSG].levels[0]
    part = level.read("reflectance", 1, (slice(21, 101), slice(5, 77)), bands)
    expected = stored.reflectance.isel(band=bands, y=slice(21, 101), x=slice(5, 77))
    np.testing.assert_array_equal(part.reflectance.values, expected.values)
    np.testing.assert_array_equal(part.y, expected.y)


def test_libraries_are_told_their_bounds_unless_the_environment_tells_them(monkeypatch):
    told = []
    library = type("Library", (), {"mallopt": lambda self, *pair: told.append(pair)})
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library())
    for name in ("GDAL_CACHEMAX", "VSI_CACHE", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GDAL_CACHEMAX", "500")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    environment = dict(memory.os.environ)
    monkeypatch.setattr(memory.os, "environ", environment)
    bound_memory()
    assert (environment["GDAL_CACHEMAX"], environment["VSI_CACHE"]) == ("500", "FALSE")
    assert told == [(-3, 256 << 10)]
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError("not glibc")))
    bound_memory()
