"""What the shards of overviews hold: means and most frequent labels of the level below, and where they lie."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import icechunk
import numpy as np
import pytest
import rioxarray  # noqa: F401  (it is the accessor)
import xarray as xr
from small_cubes import EPSG, GRID, SHARDS, drafted, finish, label, month, pixels, write
from zarr.storage import LocalStore

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.assemble.halving import ShardError, write_overview
from difffusr.pipeline.assemble.ledger import Entry, write_entry
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.layout import overviews_over
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import Grid, OverviewIndex, PixelWindow, ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.pixels import STD_FILL, STD_SCALE
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.storage.objects import Storage

#: Three shards by five, of which two are not planned: overviews of 96 × 160, 48 × 80 pixels and so on.
WINDOW = PixelWindow(-192, 320, 192, 320)
PLANNED = [ShardIndex(row, col) for row in (-3, -2, -1) for col in range(5, 10) if (row, col) not in ((-3, 5), (-1, 9))]
RNG = np.random.default_rng(11)
DN = RNG.integers(1, 4000, (len(BANDS), WINDOW.height, WINDOW.width), np.uint16)
STD = RNG.integers(0, 900, DN.shape, np.uint16)
SOURCE = RNG.integers(0, 3, DN.shape[1:], np.uint16)
LOOKS = np.where(SOURCE > 0, RNG.integers(0, 9, SOURCE.shape), 0).astype(np.uint8)
QUALITY = np.where(SOURCE > 0, RNG.integers(1, 4, SOURCE.shape), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube with gaps of pixels and of shards, and a standard deviation, whose zone is no power of two of shards."""
    folder = tmp_path_factory.mktemp("overviews")
    storage, staging = Storage(str(folder / "cube.zarr")), Storage(str(folder / "cube.staging"))
    draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(1), [{"id": "a"}, {"id": "b"}], {}, 4, composite="medoid")
    target = open_target(storage, staging, draft, label(1))
    target.begin()
    for shard in PLANNED:
        window = GRID.shard_window(shard)
        rows = slice(window.row - WINDOW.row, window.row_stop - WINDOW.row)
        cols = slice(window.col - WINDOW.col, window.col_stop - WINDOW.col)
        has = SOURCE[rows, cols] > 0
        data = ShardData(
            np.where(has, DN[:, rows, cols], 0).astype(np.uint16),
            QUALITY[rows, cols],
            SOURCE[rows, cols],
            np.where(has, STD[:, rows, cols], STD_FILL).astype(np.uint16),
            LOOKS[rows, cols],
        )
        target.accept([target.writer().write(EPSG, shard, data)])
    planned = {(EPSG, shard) for shard in PLANNED}
    finish(target, staging, planned, planned)
    target.publish(shards_written=len(planned), keep=1)
    return Path(storage.url)


def level(cube: Path, number: int, **how: Any) -> xr.Dataset:
    """A level as xarray has it."""
    return xr.open_zarr(cube, group=f"{EPSG}/{number}", chunks=None, **how).isel(time=0).load()


def blocks(values: np.ndarray) -> np.ndarray:
    """(..., h, w, 4): the pixels that become one, by rows; past an odd edge there is nothing, which is NaN."""
    padding = [(0, 0)] * (values.ndim - 2) + [(0, length % 2) for length in values.shape[-2:]]
    values = np.pad(values.astype(float), padding, constant_values=np.nan)
    return np.stack([values[..., row::2, col::2] for row in (0, 1) for col in (0, 1)], axis=-1)


LEVELS = range(1, 4)


def test_a_zone_is_halved_until_two_chunks_hold_it(ragged):
    layout = json.loads((ragged / str(EPSG) / "zarr.json").read_text())["attributes"]["multiscales"]["layout"]
    assert [entry["asset"] for entry in layout] == ["0", "1", "2", "3"]
    assert [entry["spatial:shape"] for entry in layout] == [[192, 320], [96, 160], [48, 80], [24, 40]]
    assert overviews_over(PixelWindow(0, 0, 2048, 2048), Grid(192, 24, 2048, 256)) == 2
    assert overviews_over(PixelWindow(0, 0, 2048 * 70, 2048 * 30), Grid(192, 24, 2048, 256)) == 9
    assert overviews_over(PixelWindow(0, 0, 64, 64), GRID) == 0


@pytest.mark.parametrize("number", LEVELS)
@pytest.mark.parametrize(("name", "scale"), [("reflectance", 10_000), ("reflectance_std", STD_SCALE)])
def test_a_pixel_is_the_mean_of_those_with_data_below(ragged, number, name, scale):
    below, here = (level(ragged, n)[name].values for n in (number - 1, number))
    four = blocks(below)
    has = np.isfinite(four).any(axis=-1)
    mean = np.nanmean(np.where(has[..., None], four, 0), axis=-1)
    assert np.array_equal(has, np.isfinite(here))
    assert np.abs(here - mean)[has].max() <= 0.5001 / scale
    assert has.mean() > 0.8  # there is something to compare


@pytest.mark.parametrize("number", LEVELS)
@pytest.mark.parametrize("name", ["quality", "source", "looks"])
def test_a_label_is_the_most_frequent_of_those_with_data_below(ragged, number, name):
    below, here = (level(ragged, n, mask_and_scale=False) for n in (number - 1, number))
    labels, sources = blocks(below[name].values), np.nan_to_num(blocks(below["source"].values))
    for row, col in np.ndindex(here[name].shape):
        with_data = [int(v) for v, s in zip(labels[row, col], sources[row, col], strict=True) if s > 0]
        expected = Counter(with_data).most_common(1)[0][0] if with_data else 0
        assert here[name].values[row, col] == expected


@pytest.mark.parametrize("number", LEVELS)
def test_a_level_lies_where_the_one_below_lies(ragged, number):
    below, here = level(ragged, number - 1), level(ragged, number)
    for axis in ("x", "y"):
        step = float(here[axis][1] - here[axis][0])
        assert abs(step) == 2.5 * 2**number
        pairs = below[axis].values.reshape(-1, 2).mean(axis=1)
        assert np.array_equal(here[axis].values, pairs)
    left, _, right, top = here.reflectance.rio.bounds()
    assert float(here.x[0]) - left == right - float(here.x[-1]) == top - float(here.y[0]) == 1.25 * 2**number
    assert here.quality.rio.crs.to_epsg() == EPSG
    assert here.reflectance.attrs["cell_methods"] == "area: mean"
    assert {"time", "time_bnds", "wavelength", "spatial_ref", "band"} <= set(here.variables)


def test_a_shard_below_that_is_not_there_stops_it(tmp_path):
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    target = open_target(storage, staging, drafted(storage, 1), label(1))
    write(target, 5, SHARDS[:3])
    with pytest.raises(StoreError, match="is missing; run again"):
        write_overview(target.writer(), EPSG, OverviewIndex(1, 0, 0), OverviewIndex(1, 0, 0).children)


@pytest.mark.parametrize(
    "error",
    [
        OSError("answer cut"),
        ConnectionResetError("answer cut"),
        TimeoutError("answer cut"),
        aiohttp.ClientPayloadError("answer cut"),
        icechunk.IcechunkError("  x answer cut\n  |-> streaming error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_store_that_hangs_up_on_whoever_reads_a_shard_below_is_said_in_a_line(tmp_path, monkeypatch, error):
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    target = open_target(storage, staging, drafted(storage, 1), label(1))
    write(target, 5)

    async def hung_up(*_: Any) -> None:
        raise error

    monkeypatch.setattr(LocalStore, "get", hung_up)
    with pytest.raises(StoreError, match=r": cannot be read \(answer cut\); run again$"):
        write_overview(target.writer(), EPSG, OverviewIndex(1, 0, 0), OverviewIndex(1, 0, 0).children)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, _: path.write_bytes(b""),
        lambda path, _: path.write_bytes(path.read_bytes()[:-3]),
        lambda path, _: path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:]),
        lambda path, other: path.write_bytes(other.read_bytes()),
        lambda path, _: path.unlink(),
    ],
    ids=["empty", "cut", "torn", "another", "gone"],
)
@pytest.mark.parametrize("variable", [0, 1, 2])
def test_no_overview_is_made_of_a_shard_that_is_not_as_the_ledger_says(tmp_path, damage, variable):
    storage, staging = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "staging"))
    target, at = open_target(storage, staging, drafted(storage, 1), label(1)), OverviewIndex(1, 0, 0)
    target.begin()
    entries = {}
    for number, (child, shard) in enumerate(zip(at.children, SHARDS, strict=True)):
        entry = Entry(f"{EPSG}/{number}_0", "0123456789abcdef", "r0")
        # Its keys were those of an earlier revision: what counts is the variable.
        sums = target.writer().write(EPSG, shard, pixels(5 + number)).objects
        write_entry(staging, entry, {"objects": {path.replace("/c/", "/"): digest for path, digest in sums.items()}})
        entries[child] = entry.object_name
    write_overview(target.writer(), EPSG, at, at.children, staging, entries)
    paths = [Path(storage.url, target.draft.shard_objects(EPSG, shard)[variable]) for shard in SHARDS]
    damage(paths[2], paths[1])
    with pytest.raises(ShardError, match=r"(is not as it was written|is missing); run again"):
        write_overview(target.writer(), EPSG, at, at.children, staging, entries)
