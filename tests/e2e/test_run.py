"""The main job on a generated world: whole, resumable, and the same however it is computed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.geo.grid import ChipIndex, Grid
from difffusr.pipeline.plan.files import read_plan
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.storage.places import staging_of

GROUP = "32632/0"


def cube_of(config_path: Path) -> xr.Dataset:
    return xr.open_zarr(config_path.with_suffix(".zarr"), group=GROUP)


def run_folder(config_path: Path) -> Path:
    return Path(staging_of(load_config(config_path)).url)


def test_a_finished_run_is_whole_and_nothing_of_it_is_done_twice(difffusr, finished, tmp_path):
    checked = difffusr("verify", finished, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["missing"] + report["damaged"] + report["incomplete"], checked.out
    assert len(report["bands"]) == 12
    assert all(band["residual"] < 0.003 for band in report["bands"])
    again = difffusr("run", finished)
    assert again.code == 0
    assert "0 computed" in again.out
    assert "0 written" in again.out
    told = difffusr("status", finished)
    assert "published" in told.out
    assert "12 of 12 done" in told.out
    difffusr("status", finished, "--json", tmp_path / "status.json")
    verified = json.loads((tmp_path / "status.json").read_text())["verified"]
    assert verified["sources"] == report["sources"]
    assert (verified["clean"], verified["published_since"]) == (report["clean"], False)
    assert {kind["kind"]: kind["borders"] > 0 for kind in report["sources"]} == {
        "dates": True,
        "granules": True,
        "all": True,
    }


def test_verify_finds_a_shard_that_was_never_written_and_one_that_changed(difffusr, finished, tmp_path):
    shards = sorted((finished.with_suffix(".zarr") / GROUP / "reflectance" / "c").rglob("*"))
    first, second = [path for path in shards if path.is_file()][:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    zone = finished.with_suffix(".zarr") / GROUP.split("/")[0]
    (zone / "1" / "quality" / "c" / "0" / "0" / "0").unlink()
    coarse = zone / "2" / "source" / "c" / "0" / "0" / "0"
    coarse.write_bytes(coarse.read_bytes()[:-1] + b"x")
    checked = difffusr("verify", finished, "--json", tmp_path / "report.json")
    assert checked.code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert (len(report["missing"]), len(report["damaged"])) == (2, 2)
    assert (report["missing"][1], report["damaged"][1]) == (f"{zone.name}/1/0_0", f"{zone.name}/2/0_0")


def test_the_cube_opens_with_xarray_alone_and_says_what_it_holds(finished_run):
    code = (
        "import sys, xarray as xr\n"
        f"ds = xr.open_zarr({str(finished_run.with_suffix('.zarr'))!r}, group={GROUP!r})\n"
        "assert 'difffusr' not in sys.modules\n"
        "r = ds.reflectance\n"
        "assert r.dims == ('time', 'band', 'y', 'x') and r.dtype.kind == 'f', (r.dims, r.dtype)\n"
        "assert list(ds.band.values[:3]) == ['B01', 'B02', 'B03']\n"
        "assert float(ds.x[1] - ds.x[0]) == 2.5 and float(ds.y[1] - ds.y[0]) == -2.5\n"
        "assert str(ds.time.values[0])[:10] == '2023-06-01'\n"
        "m = float(r.sel(band='B08').mean()); assert 0.05 < m < 0.6, m\n"
        "assert ds.quality.attrs['flag_meanings'].split()[1] == 'clear'\n"
        "assert 'crs_wkt' in ds.spatial_ref.attrs\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pixels_lie_where_their_coordinates_say(finished_run, world):
    """Half a pixel of shift would show: the cube averaged to 10 m is compared with the scene and with it shifted."""
    import rasterio

    path = finished_run
    ds = cube_of(path).isel(time=0)
    numbers = Cube(Storage(str(path.with_suffix(".zarr")))).scenes
    source = ds.source.values
    number = int(np.bincount(source[source > 0]).argmax())
    scene_id = numbers[number]["id"]
    with rasterio.open(world.catalog.parent / "items" / scene_id / "B08.tif") as file:
        raw, transform = file.read(1).astype(float), file.transform
    left, top = transform.c, transform.f
    part = ds.reflectance.sel(band="B08").sel(
        x=slice(left, left + raw.shape[1] * 10), y=slice(top, top - raw.shape[0] * 10)
    )
    same = ds.source.sel(x=part.x, y=part.y).values == number
    rows, cols = (n // 4 for n in part.shape)
    x0 = round((float(part.x[0]) - 1.25 - left) / 10)
    y0 = round((top - float(part.y[0]) - 1.25) / 10)
    blocks = part.values[: rows * 4, : cols * 4].reshape(rows, 4, cols, 4).mean(axis=(1, 3))
    whole = same[: rows * 4, : cols * 4].reshape(rows, 4, cols, 4).all(axis=(1, 3))
    offset = 1000 if scene_id.startswith("S2B") else 0
    measured = (raw[y0 : y0 + rows, x0 : x0 + cols] - offset) / 1e4
    errors = {}
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            moved = np.roll(measured, (dy, dx), (0, 1))
            errors[dy, dx] = np.abs(blocks - moved)[2:-2, 2:-2][whole[2:-2, 2:-2]].mean()
    assert min(errors, key=errors.get) == (0, 0)
    assert errors[0, 0] < 0.01
    # symmetric: neither neighbour is nearer than the other, as it would be after half a pixel of shift
    assert errors[0, 1] / errors[0, -1] == pytest.approx(1, abs=0.1)
    assert errors[1, 0] / errors[-1, 0] == pytest.approx(1, abs=0.1)


def test_the_same_cube_to_the_bit_whatever_the_batch_the_cores_and_the_number_of_actors(
    difffusr, configure, finished_run
):
    path = configure(compute={"batch": 5, "cpus_per_actor": 2})
    assert difffusr("run", path).code == 0
    # one actor of two cores with batches of five, the last of two; the finished run has two, with a batch of one
    fives, ones = (
        xr.open_zarr(one.with_suffix(".zarr"), group=GROUP, mask_and_scale=False).load() for one in (path, finished_run)
    )
    assert fives.identical(ones)
    assert float((ones.reflectance > 0).mean()) > 0.1


def test_an_interrupted_run_computes_only_what_is_missing(difffusr, finished):
    path = finished
    before = cube_of(path).load()
    assert not list((run_folder(path) / "chips").rglob("*.chip"))  # nothing needs them any more
    plan = read_plan(staging_of(load_config(path)))
    entry = sorted((run_folder(path) / "shards").rglob("*.json"))[0]
    entry.unlink()
    (lost,) = [shard for shard in plan.shards if entry.name.startswith(f"{shard.index.row}_{shard.index.col}-")]
    ended = difffusr("run", path)
    assert ended.code == 0
    assert f"{len(lost.chips)} computed" in ended.out
    assert "1 written" in ended.out
    assert cube_of(path).load().equals(before)


@pytest.mark.slow
def test_a_second_period_joins_the_first(difffusr, configure):
    june = configure(period={"start": "2023-06-01", "end": "2023-06-30"})
    assert difffusr("run", june).code == 0
    first = cube_of(june).load()
    july = configure(period={"start": "2023-07-01", "end": "2023-07-31"})
    assert difffusr("run", july).code == 0
    both = cube_of(july)
    assert [str(t)[:7] for t in both.time.values] == ["2023-06", "2023-07"]
    assert both.isel(time=[0]).reflectance.load().equals(first.reflectance)
    assert not np.array_equal(both.reflectance.isel(time=1).values, first.reflectance.isel(time=0).values)


def test_where_a_scene_is_masked_or_ends_the_next_fills(finished_run):
    ds = cube_of(finished_run).isel(time=0).load()
    quality, source = ds.quality.values, ds.source.values
    assert ((quality == 0) == (source == 0)).all()
    assert (ds.reflectance.isnull().all("band").values == (quality == 0)).all()
    assert len(np.unique(source[source > 0])) > 1
    assert (quality == 3).mean() < 0.02  # two dates see nearly everything without cloud


def test_chips_that_no_scene_covers_are_not_computed(loaded):
    from difffusr.pipeline.plan.decision import plan_run

    config = loaded(area={"bbox": [8.5, 47.3, 9.6, 48.2]})
    plan = plan_run(config)
    grid = Grid(96, 24, 512, 256)
    assert 0 < len(plan.chips) < 20
    assert all(chip.covered > 0 for chip in plan.chips)
    assert len({chip.key for chip in plan.chips}) == len(plan.chips)
    windows = [grid.chip_window(ChipIndex(*chip.index)) for chip in plan.chips]
    assert all(any(w.overlaps(grid.shard_window(s.index)) for s in plan.shards) for w in windows)


def test_planning_twice_gives_the_same_bytes(difffusr, configure):
    path = configure()
    folder = run_folder(path) / "plan"
    assert difffusr("plan", path).code == 0
    first = {f.name: f.read_bytes() for f in folder.iterdir()}
    assert difffusr("plan", path).code == 0
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == first
    assert set(first) == {"scenes.parquet", "chips.parquet", "shards.parquet", "manifest.json"}
