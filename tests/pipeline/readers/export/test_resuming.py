"""Tiles that are whole and of the cube's present state are kept, all others made again; a bad one stops none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from exported_tiles import PLACE, tiles_in
from rasterio.errors import RasterioError
from rasterio.transform import from_origin
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import ShardIndex
from difffusr.pipeline.readers.export import writing
from difffusr.pipeline.readers.export.chosen import exports_of
from difffusr.pipeline.readers.export.states import state_of
from difffusr.pipeline.readers.export.tiling import Done, How, export_items
from difffusr.pipeline.storage.objects import Storage

CODES = (32632, 32633)


def export(cube: Path, folder: Path | Storage, how: How = How(workers=1), **wishes: Any) -> Done:  # noqa: B008
    """Tiles of quality in the zones, the cheapest to make, unless others are wished for."""
    opened = Cube(Storage(str(cube)))
    files = exports_of(opened, None, **{"variables": ["quality"], "tile_km": 0.16, **wishes})
    return export_items(opened, files, folder if isinstance(folder, Storage) else Storage(str(folder)), "tiles", how)


def times(folder: Path) -> dict[str, int]:
    return {name: path.stat().st_mtime_ns for name, path in tiles_in(folder).items()}


def revise(cube: Path, shards: dict[int, list[ShardIndex]], word: str = "again") -> None:
    """Write shards of the month again, as another run does."""
    windows = windows_at(*PLACE, CODES, (2, 4))
    truths = dict.fromkeys(windows, waves(*PLACE, low=600.0))
    publish_zones(Storage(str(cube)), windows, truths, changed=shards, word=word)


def test_what_is_whole_is_kept(kept_zones, tmp_path):
    first = export(kept_zones, tmp_path)
    before = times(tmp_path)
    second = export(kept_zones, tmp_path)
    assert (len(first.made), first.kept) == (len(before), [])
    assert (second.made, set(second.kept)) == ([], set(before))
    assert times(tmp_path) == before


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)


def older(path: Path) -> None:
    item = json.loads(item_of(path).read_text())
    item["assets"]["quality"]["difffusr:state"] = "0" * 64
    item_of(path).write_text(json.dumps(item))


def item_of(path: Path) -> Path:
    return path.with_name(path.name.replace("_quality", "").replace(".tif", ".json"))


HARMS: dict[str, Callable[[Path], object]] = {
    "a file is cut": cut,
    "a byte of a file is another": changed,
    "a file is empty": lambda path: os.truncate(path, 0),
    "a file is gone": Path.unlink,
    "an item is gone": lambda path: item_of(path).unlink(),
    "an item is cut": lambda path: cut(item_of(path)),
    "an item is of something else": lambda path: item_of(path).write_text("[1, 2]"),
    "an item is of an older state": older,
    "an item has lost its assets": lambda path: item_of(path).write_text('{"assets": null, "properties": {}}'),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_not_is_made_again_and_nothing_else(kept_zones, tmp_path, harm):
    export(kept_zones, tmp_path)
    pixels = {name: rasterio.open(path).read() for name, path in tiles_in(tmp_path).items()}
    victim = list(tiles_in(tmp_path).values())[1]
    HARMS[harm](victim)
    done = export(kept_zones, tmp_path)
    assert (done.made, len(done.kept), done.failures) == ([victim.name], len(pixels) - 1, {})
    with rasterio.open(victim) as file:
        np.testing.assert_array_equal(file.read(), pixels[victim.name])
    assert export(kept_zones, tmp_path).made == []


def test_after_a_revision_the_zones_tiles_are_made_again(zones, tmp_path):
    folder = tmp_path / "out"
    export(zones, folder, variables=["reflectance"])
    before = times(folder)
    window = windows_at(*PLACE, CODES, (2, 4))[32632]
    revise(zones, {32632: [ShardIndex(window.row // 64, window.col // 64 + 1)]})
    done = export(zones, folder, variables=["reflectance"])
    assert set(done.made) == {name for name in before if name.startswith("32632")}
    assert set(done.kept) == {name for name in before if name.startswith("32633")}
    opened = Cube(Storage(str(zones)))
    for name, path in tiles_in(folder).items():
        epsg = int(name[:5])
        whole, stored = opened.window(epsg), np.asarray(opened.array(epsg, "reflectance")[0])
        with rasterio.open(path) as file:
            left, _, _, top = opened.lattice(epsg).bounds(whole)
            row, col = round((top - file.bounds.top) / 2.5), round((file.bounds.left - left) / 2.5)
            rows, cols = np.arange(row, row + file.height), np.arange(col, col + file.width)
            inside = np.ix_((rows >= 0) & (rows < whole.height), (cols >= 0) & (cols < whole.width))
            seen = file.read()
        rows, cols = rows[(rows >= 0) & (rows < whole.height)], cols[(cols >= 0) & (cols < whole.width)]
        np.testing.assert_array_equal(seen[:, *inside], stored[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])


def test_after_a_revision_only_tiles_that_show_the_zone_are_made_again_in_a_mosaic(tmp_path):
    west, east = windows_at(11.996, 48.0, CODES[:1], (1, 2)), windows_at(12.004, 48.0, CODES[1:], (1, 2))
    windows, storage = {**west, **east}, Storage(str(tmp_path / "apart.zarr"))
    truths = dict.fromkeys(windows, waves(*PLACE))
    publish_zones(storage, windows, truths, collar_m=None)
    before = mosaic_states(storage)
    window = windows[32632]
    shard = ShardIndex(window.row // 64, window.col // 64)
    publish_zones(storage, windows, truths, collar_m=None, changed={32632: [shard]}, word="again")
    after = mosaic_states(storage)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert changed < set(before)


def mosaic_states(storage: Storage) -> dict[str, str]:
    """What each tile of a mosaic is made of, by name."""
    opened = Cube(storage)
    files = exports_of(opened, None, variables=["quality"], crs="EPSG:3035", tile_km=0.1)
    return {file.name: state_of(opened, file) for file in files}


@pytest.mark.parametrize(
    "wishes",
    [
        {"tile_km": 0.32},
        {"crs": "EPSG:3035", "tile_km": 0.16},
        {"crs": "EPSG:3035", "resolution": 5.0, "tile_km": 0.16},
        {"crs": "EPSG:3035"},
        {"crs": "EPSG:3035", "variables": ["source"]},
        {"crs": "+proj=laea +lat_0=48 +lon_0=12 +datum=WGS84", "tile_km": 0.16},
    ],
)
def test_of_other_pixels_a_file_has_another_state(kept_zones, wishes):
    opened = Cube(Storage(str(kept_zones)))
    usual = {state_of(opened, file) for file in exports_of(opened, None, variables=["quality"], tile_km=0.16)}
    others = {state_of(opened, file) for file in exports_of(opened, None, **{"variables": ["quality"], **wishes})}
    assert others
    assert not usual & others


def test_a_damaged_shard_is_named_and_stops_no_other_tile(zones, run, tmp_path):
    (victim, *_) = sorted((zones / "32632" / "0" / "reflectance" / "c" / "0" / "0").rglob("1"))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    folder = tmp_path / "out"
    code, _, error = run(zones, "--cog", folder, "--tile-km", "0.16", "--workers", 1)
    assert code == 3
    named = [line for line in error.splitlines() if "cannot be read" in line]
    assert named
    assert all("32632" in line and "difffusr verify" in line for line in named)
    assert "run it again once that is mended" in error
    made = set(tiles_in(folder))
    assert any(name.startswith("32633") for name in made)
    assert any(name.startswith("32632") for name in made)
    assert not any(path.name.startswith((".partial", "draft")) for path in folder.rglob("*"))
    # Files and items of the tile that failed are not there; the others are one raster.
    for line in named:
        name = line.removeprefix("error: ").partition(":")[0]
        assert not list(folder.glob(f"{name}*"))
        assert name.rpartition("km_")[2] not in (folder / "32632_2023-06_reflectance.vrt").read_text()


def test_what_was_mended_is_made_the_next_time(zones, tmp_path):
    folder = tmp_path / "out"
    (victim, *_) = sorted((zones / "32632" / "0" / "quality" / "c" / "0" / "0").rglob("1"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    broken = export(zones, folder)
    victim.write_bytes(whole)
    mended = export(zones, folder)
    assert broken.failures
    assert (mended.failures, len(mended.made), set(mended.kept)) == ({}, len(broken.failures), set(broken.made))


def test_a_full_disk_leaves_no_part_of_a_tile(kept_zones, tmp_path, monkeypatch):
    real, calls = writing.rasterio.shutil.copy, []

    def full(*args: Any, **options: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            Path(args[1]).write_bytes(b"half a file")
            raise RasterioError("No space left on device")
        real(*args, **options)

    monkeypatch.setattr(writing.rasterio.shutil, "copy", full)
    done = export(kept_zones, tmp_path)
    assert len(done.failures) == 1
    assert "--scratch names another place" in next(iter(done.failures.values()))
    assert set(tiles_in(tmp_path)) == set(done.made)


def test_who_was_killed_between_file_and_item_goes_on(kept_zones, tmp_path):
    """The file is there without an item: it says itself what made it, and is made again without being asked for."""
    export(kept_zones, tmp_path)
    for path in tmp_path.glob("*.json"):
        path.unlink()
    done = export(kept_zones, tmp_path)
    assert (len(done.made), done.kept) == (len(tiles_in(tmp_path)), [])


@pytest.mark.parametrize("what", ["text", "a raster of somebody else", "another collection"])
def test_what_is_somebody_elses_is_not_replaced_unasked(kept_zones, run, tmp_path, what):
    name = next(iter(exports_of(Cube(Storage(str(kept_zones))), None, variables=["quality"], tile_km=0.16))).name
    there = tmp_path / ("collection.json" if what == "another collection" else name)
    if what == "text":
        there.write_text("mine")
    elif what == "another collection":
        there.write_text('{"type": "Collection", "id": "mine", "links": []}')
    else:
        place = from_origin(500_000, 5_000_000, 2.5, 2.5)
        with rasterio.open(there, "w", "GTiff", 8, 8, 1, "EPSG:32632", place, "uint8") as file:
            file.write(np.ones((1, 8, 8), np.uint8))
    before = there.read_bytes()
    words = (kept_zones, "--cog", tmp_path, "--tile-km", "0.16", "--variable", "quality", "--workers", 1)
    code, _, error = run(*words)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{there.name}: exists already; add --overwrite" in error
    assert (there.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (before, [there.name])
    assert run(*words, "--overwrite")[0] == 0
    assert there.read_bytes() != before


def test_tiles_of_earlier_exports_stay_in_collection_and_raster(kept_zones, tmp_path):
    opened, folder = Cube(Storage(str(kept_zones))), Storage(str(tmp_path))
    files = exports_of(opened, None, variables=["quality"], tile_km=0.16)
    half = len(files) // 2
    export_items(opened, files[:half], folder, "tiles", How(workers=1))
    export_items(opened, files[half:], folder, "tiles", How(workers=1))
    links = json.loads((tmp_path / "collection.json").read_text())["links"]
    assert {link["href"] for link in links if link["rel"] == "item"} == {f"./{file.item}.json" for file in files}
    rasters = "".join(path.read_text() for path in tmp_path.glob("*.vrt"))
    assert all(file.name in rasters for file in files)


def test_a_tile_whose_file_is_gone_is_in_no_raster(kept_zones, tmp_path):
    opened, folder = Cube(Storage(str(kept_zones))), Storage(str(tmp_path))
    files = exports_of(opened, None, variables=["quality"], tile_km=0.16)
    export_items(opened, files, folder, "tiles", How(workers=1))
    (tmp_path / files[0].name).unlink()
    export_items(opened, files[1:], folder, "tiles", How(workers=1))
    for path in (tmp_path / "collection.json", *tmp_path.glob("*.vrt")):
        assert files[0].tile is not None
        assert f"{files[0].tile.name}." not in path.read_text()


def test_what_lies_below_the_folder_is_not_looked_at(kept_zones, tmp_path):
    (tmp_path / "below").mkdir()
    name = exports_of(Cube(Storage(str(kept_zones))), None, variables=["quality"], tile_km=0.16)[0].name
    (tmp_path / "below" / name).write_text("mine")
    assert name in export(kept_zones, tmp_path).made
    assert (tmp_path / "below" / name).read_text() == "mine"


def test_another_variable_joins_the_items(kept_zones, tmp_path):
    export(kept_zones, tmp_path)
    export(kept_zones, tmp_path, variables=["source"])
    for path in tiles_in(tmp_path).values():
        if "_quality" in path.name:
            assert set(json.loads(item_of(path).read_text())["assets"]) == {"quality", "source"}


def test_files_go_to_an_object_store_and_are_kept_there(kept_zones, bucket, s3_options):
    folder = Storage(f"s3://{bucket}/tiles", s3_options)
    first = export(kept_zones, folder, tile_km=0.32)
    again = export(kept_zones, folder, tile_km=0.32)
    assert (set(again.kept), again.made) == (set(first.made), [])
    folder.delete(f"{first.made[0]}")
    assert export(kept_zones, folder, tile_km=0.32).made == [first.made[0]]


def test_workers_make_the_same_files(kept_zones, tmp_path, monkeypatch):
    """As a worker does it: the work and the job come out of a pickle."""
    import pickle

    from difffusr.pipeline.readers.export import making, tiling

    def elsewhere(work: Any, job: Any) -> Any:
        making._opened.clear()
        return pickle.loads(pickle.dumps(making.make_item(*pickle.loads(pickle.dumps((work, job))))))

    plain = export(kept_zones, tmp_path / "plain")
    monkeypatch.setattr(tiling, "make_item", elsewhere)
    assert export(kept_zones, tmp_path / "workers").made == plain.made
    for name, path in tiles_in(tmp_path / "plain").items():
        assert path.read_bytes() == (tmp_path / "workers" / name).read_bytes()
    shutil.rmtree(tmp_path / "workers")


@pytest.mark.slow
def test_on_ray_files_are_the_same_and_a_bad_tile_stops_none(zones, tmp_path):
    plain = export(zones, tmp_path / "plain", tile_km=0.1)
    (victim, *_) = sorted((zones / "32632" / "0" / "quality" / "c" / "0" / "0").rglob("1"))
    victim.write_bytes(victim.read_bytes()[:40])
    done = export(zones, tmp_path / "ray", How(workers=2), tile_km=0.1)
    assert done.failures
    assert set(done.made) < set(plain.made)
    assert len(done.made) + len(done.failures) == len(plain.made)
    for name in done.made:
        np.testing.assert_array_equal(
            rasterio.open(tmp_path / "plain" / name).read(), rasterio.open(tmp_path / "ray" / name).read()
        )
    assert set(export(zones, tmp_path / "ray", How(workers=2), tile_km=0.1).kept) == set(done.made)
