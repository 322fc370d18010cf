"""The picture beside an item: small, of the ground alone, in colours that are the ground's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from pyproj import Transformer
from small_cubes import GRID, finish, label, month

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import PixelWindow, ShardIndex
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.readers import footprints
from difffusr.pipeline.readers.footprints import footprint, ground_of
from difffusr.pipeline.readers.stac.picture import thumbnail
from difffusr.pipeline.storage.objects import Storage

EPSG = 32632

#: Of which few pixels have data.
WINDOW = PixelWindow(-2_117_632, 198_656, 320, 640)


def sparse(folder: Path, seen: np.ndarray) -> Cube:
    """A cube with data where they are to be seen, of the whole window."""
    storage, staging = Storage(f"{folder}/sparse.zarr"), Storage(f"{folder}/sparse.staging")
    draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(1), [{"id": "scene"}], {})
    target = open_target(storage, staging, draft, label(1))
    target.begin()
    writer, done, planned = target.writer(), [], set()
    for row, col in np.argwhere(seen.reshape(5, 64, 10, 64).any(axis=(1, 3))).tolist():
        shard = ShardIndex(WINDOW.row // 64 + row, WINDOW.col // 64 + col)
        here = seen[row * 64 : row * 64 + 64, col * 64 : col * 64 + 64]
        shades = np.linspace(500, 3000, len(BANDS)).astype(np.uint16)[:, None, None]
        quality, source = here.astype(np.uint8), here.astype(np.uint16)
        done.append(writer.write(EPSG, shard, ShardData(shades * source, quality, source)))
        planned.add((EPSG, shard))
    target.accept(done)
    finish(target, staging, planned, planned)
    target.publish(shards_written=len(done), keep=1)
    return Cube(storage)


def pixels(*places: tuple[slice | int, slice | int]) -> np.ndarray:
    seen = np.zeros((WINDOW.height, WINDOW.width), bool)
    for place in places:
        seen[place] = True
    return seen


SEEN = {
    "one pixel": pixels((133, 477)),
    "a line of single pixels": pixels((100, slice(40, 500))),
    "a corner": pixels((slice(0, 64), slice(0, 64))),
    "two places far apart": pixels((slice(0, 10), slice(0, 10)), (slice(290, 320), slice(600, 640))),
    "all but one pixel": ~pixels((160, 320)),
    "every eighth pixel": pixels((slice(0, 320, 8), slice(0, 320, 8))),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_footprint_from_the_coarsest_level_holds_every_single_pixel(tmp_path, monkeypatch, name):
    monkeypatch.setattr(footprints, "_LOOKED_AT", 1)
    cube = sparse(tmp_path, SEEN[name])
    assert cube.overviews(EPSG) >= 3
    ground = ground_of(cube, EPSG, 0)
    found = footprint(cube, EPSG, ground)
    rows, cols = np.nonzero(SEEN[name])
    left, _, _, top = WINDOW.bounds_m(EPSG)
    x, y = left + 2.5 * (cols + 0.5), top - 2.5 * (rows + 0.5)
    shapely.prepare(ground.shape)
    assert shapely.contains_xy(ground.shape, x, y).all()
    lon, lat = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True).transform(x, y)
    assert shapely.contains_xy(found.shape, lon, lat).all()
    # No farther from data than it says, measured in the zone.
    assert found.beyond_m is not None
    corners = shapely.points(shapely.get_coordinates(ground.shape))
    data = shapely.union_all(shapely.points(np.stack([x, y], axis=-1))) if len(x) < 3000 else None
    if data is not None:
        assert shapely.distance(corners, data).max() <= found.beyond_m + 2.5
    if SEEN[name].mean() < 0.006:
        assert ground.shape.area < 0.25 * WINDOW.box(EPSG).area


@pytest.mark.parametrize("name", ["one pixel", "a corner", "two places far apart", "all but one pixel"])
def test_a_picture_is_small_and_shows_the_ground_alone(tmp_path, name):
    cube = sparse(tmp_path, SEEN[name])
    picture = Image.open(io.BytesIO(thumbnail(cube, EPSG, 0, ground_of(cube, EPSG, 0))))
    assert (picture.format, picture.mode) == ("PNG", "RGBA")
    assert max(picture.size) <= 320
    rows, cols = np.nonzero(SEEN[name])
    wide, high = np.ptp(cols) + 1, np.ptp(rows) + 1
    assert max(picture.size) <= max(wide, high) + 10
    opaque = np.asarray(picture)[..., 3] > 0
    assert opaque.any()
    if name == "two places far apart":
        assert opaque.mean() < 0.02
