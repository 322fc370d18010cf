"""COGs of a part of a cube: the cube's own pixels, where they belong, as any GIS reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from small_cubes import EPSG, GRID, finish, label, month

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.commands import cli
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.shard import ShardData
from difffusr.pipeline.geo.grid import PixelWindow, ShardIndex
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.readers.export import export_cogs, exports_of
from difffusr.pipeline.storage.objects import Storage

#: Two shards by three, 128 × 192 pixels, near 16° N 105° E.
WINDOW = PixelWindow(-720_000, 200_000, 128, 192)
SHARDS = [ShardIndex(row, col) for row in (-11_250, -11_249) for col in (3125, 3126, 3127)]
RNG = np.random.default_rng(5)
REFLECTANCE = RNG.integers(1, 10_000, (len(BANDS), WINDOW.height, WINDOW.width), np.uint16)
QUALITY = RNG.integers(1, 5, (WINDOW.height, WINDOW.width), np.uint8)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months; the second holds twice the reflectance of the first."""
    folder = tmp_path_factory.mktemp("export")
    storage, staging = Storage(str(folder / "cube.zarr")), Storage(str(folder / "cube.staging"))
    for number in (1, 2):
        draft = draft_cube(storage, GRID, {EPSG: WINDOW}, month(number), [{"id": f"scene {number}"}], {})
        target = open_target(storage, staging, draft, label(number))
        target.begin()
        writer, done = target.writer(), []
        for shard in SHARDS:
            window = GRID.shard_window(shard)
            here = (
                slice(window.row - WINDOW.row, window.row_stop - WINDOW.row),
                slice(window.col - WINDOW.col, window.col_stop - WINDOW.col),
            )
            quality = QUALITY[here]
            done.append(writer.write(EPSG, shard, ShardData(REFLECTANCE[:, *here] * number, quality, quality * 1)))
        target.accept(done)
        planned = {(EPSG, shard) for shard in SHARDS}
        finish(target, staging, planned, planned)
        target.publish(shards_written=len(SHARDS), keep=1)
    return Path(storage.url)


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command: its exit code, what it prints, its errors."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def degrees(window: PixelWindow) -> str:
    """A window's box as --bbox takes it."""
    left, bottom, right, top = window.bounds_m(EPSG)
    to_degrees = Transformer.from_crs(f"EPSG:{EPSG}", "EPSG:4326", always_xy=True)
    west, south = to_degrees.transform(left, bottom)
    east, north = to_degrees.transform(right, top)
    return f"{west:.9f},{south:.9f},{east:.9f},{north:.9f}"


def test_whole_cube_comes_out_as_it_is_stored(cube, export, tmp_path):
    code, said, _ = export(cube, "--cog", tmp_path)
    assert code == 0
    names = [f"{EPSG}_{label(month)}_{name}.tif" for month in (1, 2) for name in ("reflectance", "quality")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all(f"{tmp_path}/{name}  192 × 128 px" in said for name in names)
    with rasterio.open(tmp_path / names[2]) as file:
        np.testing.assert_array_equal(file.read(), REFLECTANCE * 2)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs.to_epsg() == EPSG
        assert tuple(file.bounds) == WINDOW.bounds_m(EPSG)
        assert (file.nodata, file.scales, file.descriptions) == (0, (1e-4,) * 12, BANDS)
        assert (file.tags()["PERIOD_START"], file.tags()["PERIOD_END"]) == ("2023-02-01", "2023-02-28")
        assert float(file.tags(1, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"]) == pytest.approx(0.4427, abs=1e-3)
    with rasterio.open(tmp_path / names[1]) as file:
        np.testing.assert_array_equal(file.read(1), QUALITY)
        assert "interpolated" in file.tags()["FLAG_MEANINGS"]


def test_area_is_widened_to_pixels_of_ten_metres(cube, export, tmp_path):
    wanted = PixelWindow(WINDOW.row + 34, WINDOW.col + 49, 61, 83)
    code, *_ = export(cube, "--cog", tmp_path, "--bbox", degrees(wanted), "--period", "2023-01")
    assert code == 0
    with rasterio.open(tmp_path / f"{EPSG}_2023-01_reflectance.tif") as file:
        left, bottom, right, top = file.bounds
        west, south, east, north = wanted.bounds_m(EPSG)
        assert (left % 10, bottom % 10, right % 10, top % 10) == (0, 0, 0, 0)
        assert west - 10 < left <= west
        assert south - 10 < bottom <= south
        assert east <= right < east + 10
        assert north <= top < north + 10
        # In pixels of the cube, from the corner of the file.
        row, col = round((WINDOW.bounds_m(EPSG)[3] - top) / 2.5), round((left - WINDOW.bounds_m(EPSG)[0]) / 2.5)
        np.testing.assert_array_equal(file.read(), REFLECTANCE[:, row : row + file.height, col : col + file.width])


def test_area_of_a_file_is_cut_at_the_edge_of_the_cube(cube, export, tmp_path):
    west, south, east, north = map(float, degrees(PixelWindow(WINDOW.row - 80, WINDOW.col - 80, 120, 120)).split(","))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    code, *_ = export(
        cube, "--cog", tmp_path / "out", "--area", tmp_path / "area.geojson", "--period", "2023-01",
        "--variable", "quality",
    )  # fmt: skip
    assert code == 0
    with rasterio.open(tmp_path / "out" / f"{EPSG}_2023-01_quality.tif") as file:
        assert (file.bounds.left, file.bounds.top) == (WINDOW.bounds_m(EPSG)[0], WINDOW.bounds_m(EPSG)[3])
        np.testing.assert_array_equal(file.read(1), QUALITY[: file.height, : file.width])
        assert 40 <= file.height <= 44
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{EPSG}_2023-01_quality.tif"]


def test_what_is_there_is_kept_unless_it_may_be_replaced(cube, export, tmp_path):
    there = tmp_path / f"{EPSG}_2023-01_quality.tif"
    there.write_text("mine")
    words = (cube, "--cog", tmp_path, "--period", "2023-01")
    code, _, error = export(*words)
    assert (code, error.count("\n"), there.read_text()) == (2, 1, "mine")
    assert "exists already; add --overwrite" in error
    assert [path.name for path in tmp_path.iterdir()] == [there.name]
    assert export(*words, "--overwrite")[0] == 0
    with rasterio.open(there) as file:
        np.testing.assert_array_equal(file.read(1), QUALITY)


@pytest.mark.parametrize(
    ("words", "expected", "code"),
    [
        (("--period", "2024-01"), "--period: the cube has no 2024-01; it has 2023-01, 2023-02", 2),
        (("--variable", "ndvi"), "--variable: the cube has no 'ndvi'; it has quality, reflectance, source", 2),
        (("--bbox", "6,49,6.1,49.1"), f"does not cover this area in any period; it covers 500000, {1_799_680}", 2),
        (("--bbox", "6,49"), "--bbox: found 6,49, expected west,south,east,north", 2),
        (("--bbox", "6,49,6,50"), "--bbox: found 6,49,6,50, expected west,south,east,north", 2),
        (("--bbox", "1,2,3,4", "--area", "a.gpkg"), "--area and --bbox: give one of them", 2),
        (("--area", "nowhere.gpkg"), "nowhere.gpkg: cannot be read: no such file here", 2),
        (("--scratch", "/nowhere"), "--scratch: /nowhere is not a folder", 2),
    ],
)
def test_mistakes_are_one_line(cube, export, tmp_path, words, expected, code):
    ended, _, error = export(cube, "--cog", tmp_path / "out", *words)
    assert (ended, error.count("\n")) == (code, 1)
    assert expected in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["nothing", "another store"])
def test_what_is_no_cube_is_said(export, tmp_path, what):
    if what == "another store":
        (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    ended, _, error = export(tmp_path, "--cog", tmp_path / "out")
    assert (ended, error.count("\n")) == (1, 1)
    assert {"nothing": "holds no cube", "another store": "not a cube of this kind"}[what] in error


def test_files_go_to_an_object_store(cube, bucket, s3_options):
    opened, folder = Cube(Storage(str(cube))), Storage(f"s3://{bucket}/cogs", s3_options)
    written = export_cogs(opened, exports_of(opened, None, ["2023-01"], ["quality"]), folder)
    assert written == [f"s3://{bucket}/cogs/{EPSG}_2023-01_quality.tif"]
    with rasterio.MemoryFile(folder.read(f"{EPSG}_2023-01_quality.tif")) as memory, memory.open() as file:
        np.testing.assert_array_equal(file.read(1), QUALITY)


def test_others_may_read_what_is_written(tmp_path):
    before = os.umask(0o022)
    try:
        Storage(str(tmp_path)).write("zarr.json", b"{}")
    finally:
        os.umask(before)
    assert (tmp_path / "zarr.json").stat().st_mode & 0o777 == 0o644
