"""`difffusr continent`: zones brought into one CRS by a real Ray, and then a cube as any other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401  # what `.odc` is
import pytest
import xarray as xr
import yaml
from two_zones import GRID, publish_zones, waves, windows_at

from difffusr.pipeline.assemble.continent.sources import touching
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.lattice import Lattice
from difffusr.pipeline.storage.lease import Lease
from difffusr.pipeline.storage.objects import Storage

LON, LAT, ZONES = 12.0, 48.0, (32632, 32633)
SIZES = ("--shard-px", "128", "--chunk-px", "64")


@pytest.fixture
def zones(tmp_path) -> str:
    """A cube on both sides of 12° E."""
    url = f"{tmp_path}/zones.zarr"
    windows = windows_at(LON, LAT, ZONES, (3, 4))
    publish_zones(Storage(url), windows, dict.fromkeys(windows, waves(LON, LAT)))
    return url


def content(cube: Path) -> dict[str, str]:
    files = (path for path in sorted(cube.rglob("*")) if path.is_file())
    return {str(path.relative_to(cube)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pixels(url: str) -> np.ndarray:
    return np.asarray(Cube(Storage(url)).array(3035, "reflectance")[0])


@pytest.mark.parametrize("kind", ["laea.zarr", pytest.param("icechunk", marks=pytest.mark.slow)])
def test_a_cube_of_one_crs_is_made_checked_revised_and_rolled_back(difffusr, zones, tmp_path, kind):
    target = f"{tmp_path}/laea.zarr" if kind != "icechunk" else f"icechunk+{tmp_path}/laea.icechunk"
    words = ("continent", zones, target, "--crs", "EPSG:3035", *SIZES, "--config", f"{tmp_path}/laea.yaml")
    made = difffusr(*words)
    assert made.code == 0, made.err
    assert "publication 1 (period" in made.out
    assert "chips" not in made.out.split("seconds")[0]
    first = pixels(target)
    again = difffusr(*words)
    assert (again.code, "nothing has changed" in again.out) == (0, True)
    verified = difffusr("verify", f"{tmp_path}/laea.yaml")
    assert "zones (0.97 – 1.03)" in " ".join(verified.out.split())
    assert "clean" in verified.out
    # One shard of a zone is published anew: what shows it is written, and nothing else.
    windows = windows_at(LON, LAT, ZONES, (3, 4))
    shard = list(GRID.shards_touching(windows[32632]))[5]
    other = {32632: waves(LON + 0.0003, LAT), 32633: waves(LON, LAT)}
    publish_zones(Storage(zones), windows, other, changed={32632: [shard]}, word="another")
    lattice = Lattice("EPSG:3035")
    place = np.array([shard.row], np.int32), np.array([shard.col], np.int32)
    rows, _, _ = touching(lattice, 128, np.array([32632], np.int32), *place, 64)
    revised = difffusr(*words)
    assert revised.code == 0, revised.err
    assert f"{len(rows)} written, " in revised.out
    assert "the zones below have changed" in revised.out
    second = pixels(target)
    assert not np.array_equal(first, second)
    assert difffusr("rollback", f"{tmp_path}/laea.yaml").code == 0
    assert np.array_equal(pixels(target), first)
    listed = difffusr("history", f"{tmp_path}/laea.yaml")
    assert "rollback to 1" in listed.out


def test_who_opens_it_finds_its_crs_and_its_ground(difffusr, zones, tmp_path):
    target = f"{tmp_path}/degrees.zarr"
    made = difffusr("continent", zones, target, "--crs", "EPSG:4326", *SIZES, "--bbox", "11.999,47.999,12.001,48.001")
    assert made.code == 0, made.err
    opened = xr.open_zarr(target, group="4326/0")
    assert opened.odc.crs.epsg == 4326
    assert opened.x.attrs["units"] == "degrees_east"
    assert opened.y.attrs["standard_name"] == "latitude"
    here = opened.reflectance.sel(x=LON, y=LAT, method="nearest").isel(time=0).values * 10_000
    x, y = (float(axis.sel({axis.name: at}, method="nearest")) for axis, at in ((opened.x, LON), (opened.y, LAT)))
    wanted = [waves(LON, LAT)(x, y, band) for band in range(12)]
    assert np.abs(here - np.array(wanted)).max() < 8


def test_what_is_lost_of_it_is_named_and_made_again_bit_for_bit(difffusr, zones, tmp_path):
    target = tmp_path / "laea.zarr"
    words = ("continent", zones, target, "--crs", "EPSG:3035", *SIZES, "--config", f"{tmp_path}/laea.yaml")
    assert difffusr(*words).code == 0
    whole = content(target)
    shards = sorted(path for path in target.rglob("3035/0/reflectance/c/*/*/*/*") if path.is_file())
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-40] + b"x" * 40)
    (target / "3035/0/x/c/0").unlink()
    found = difffusr("verify", f"{tmp_path}/laea.yaml")
    assert found.code == 1
    assert f"difffusr run {tmp_path}/laea.yaml" in " ".join(found.out.split())
    mended = difffusr("run", f"{tmp_path}/laea.yaml")
    assert mended.code == 0, mended.err
    assert content(target) == whole
    assert "clean" in difffusr("verify", f"{tmp_path}/laea.yaml").out


def test_a_second_driver_is_refused(difffusr, zones, tmp_path):
    held = Lease.acquire(Storage(f"{tmp_path}/laea.staging"), "another run")
    try:
        refused = difffusr("continent", zones, f"{tmp_path}/laea.zarr", "--crs", "EPSG:3035", *SIZES)
    finally:
        held.release()
    assert refused.code == 1
    assert "another run" in refused.err
    assert not content(tmp_path / "laea.zarr")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--crs", "EPSG:0"), "crs: found 'EPSG:0'"),
        (("--crs", "EPSG:3035", "--bbox", "1,2,3"), "--bbox: found 1,2,3, expected west,south,east,north"),
        (("--crs", "EPSG:3035", "--period", "2020-01"), "has no 2020-01; it has 2023-06"),
        (("--crs", "EPSG:3035", "--shard-px", "100"), "grid.shard_px: found 100, expected a multiple of grid.chunk_px"),
        (("--crs", "EPSG:3035", "--resolution", "-1"), "grid.resolution: found -1"),
        (("--crs", "EPSG:3035", "--area", "nowhere.geojson"), "nowhere.geojson"),
    ],
)
def test_what_is_wrong_is_one_line(command, zones, tmp_path, words, said):
    ended = command("continent", zones, f"{tmp_path}/out.zarr", *words)
    assert ended.code == 2, ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert "Traceback" not in ended.err


def test_a_scheduled_run_makes_it_after_publishing(difffusr, configure, world, tmp_path):
    west, south, east, north = map(float, world.bbox)
    middle = [west * 0.7 + east * 0.3, south * 0.7 + north * 0.3, west * 0.3 + east * 0.7, south * 0.3 + north * 0.7]
    config = configure(area={"bbox": middle})
    document = yaml.safe_load(config.read_text())
    sizes = {"shard_px": 256, "chunk_px": 128}
    document["derived"] = [{"name": "laea", "crs": "EPSG:3035", "url": f"{tmp_path}/laea.zarr", **sizes}]
    config.write_text(yaml.safe_dump(document))
    made = difffusr("run", config)
    assert made.code == 0, made.err
    assert made.out.count("publication 1 (period") == 2
    cube = Cube(Storage(f"{tmp_path}/laea.zarr"))
    assert (np.asarray(cube.array(3035, "source")[0]) > 0).any()
    assert "clean" in difffusr("verify", config, "--derived", "laea").out
    assert difffusr("status", config, "--derived", "laea").code == 0
    assert "publication" in difffusr("history", config, "--derived", "laea").out
    unknown = difffusr("verify", config, "--derived", "utm")
    assert (unknown.code, "--derived: found utm, the file has laea" in unknown.err) == (2, True)
    again = difffusr("run", config)
    assert again.out.count("nothing has changed") == 2
