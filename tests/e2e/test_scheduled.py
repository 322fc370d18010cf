"""Two months of a scheduled job over real scenes: what each run computes is exactly what has changed."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.plan.files import read_plan
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.storage.places import staging_of

NORTH, SOUTH = "S2B_48QUE_20200223_0_L2A", "S2B_48QUD_20200223_0_L2A"
GROUP = "32648/0"


@pytest.fixture
def own_archive(archive: Path, tmp_path: Path) -> Path:
    """Two overlapping scenes of February, and the same ground again in March; a test may change them."""
    root = tmp_path / "archive"
    for scene in (NORTH, SOUTH):
        shutil.copytree(archive.parent / "items" / scene, root / "items" / scene)
        march = scene.replace("20200223", "20200324")
        shutil.copytree(root / "items" / scene, root / "items" / march)
        renamed(root / "items" / march, scene, march, dt.timedelta(days=30))
    links = [{"rel": "item", "href": str(path.relative_to(root))} for path in sorted(root.glob("items/*/*.json"))]
    catalog = {"type": "Catalog", "id": "own", "stac_version": "1.0.0", "description": "two months", "links": links}
    (root / "catalog.json").write_text(json.dumps(catalog))
    return root


def renamed(folder: Path, old: str, new: str, later: dt.timedelta) -> None:
    """Make a copied item another acquisition."""
    (path,) = folder.glob("*.json")
    item = json.loads(path.read_text().replace(old, new))
    when = dt.datetime.fromisoformat(item["properties"]["datetime"]) + later
    item["properties"]["datetime"] = when.isoformat().replace("+00:00", "Z")
    for key in ("s2:datatake_id", "s2:product_uri", "s2:granule_id"):
        if key in item["properties"]:
            item["properties"][key] = item["properties"][key].replace("20200223", "20200324")
    path.unlink()
    (folder / f"{new}.json").write_text(json.dumps(item))


def reprocessed(root: Path, scene: str) -> None:
    """Replace a scene as a provider does: a new baseline, other pixels, the same acquisition."""
    (path,) = (root / "items" / scene).glob("*.json")
    item = json.loads(path.read_text())
    item["properties"]["s2:processing_baseline"] = "02.15"
    item["properties"]["updated"] = "2021-01-01T00:00:00Z"
    path.write_text(json.dumps(item))
    with rasterio.open(root / "items" / scene / "B08.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as band:
        pixels = band.read(1)
        band.write(np.where(pixels > 0, pixels + 100, 0).astype(pixels.dtype), 1)


def month(configure, root: Path, first: str, last: str) -> Path:
    return configure(
        area={"bbox": [103.712, 17.918, 103.730, 17.945]},
        period={"start": first, "end": last},
        source={"static_catalog": str(root / "catalog.json")},
        model={"sampler_steps": 2},
    )


def shards_with(path: Path, scene: str) -> set[str]:
    """Shards of the plan on disk that some chip with this scene touches."""
    plan = read_plan(staging_of(load_config(path)))
    return {shard.name for shard in plan.shards if any(scene in chip.scenes for chip in shard.chips)}


def report_of(path: Path) -> dict:
    return json.loads(staging_of(load_config(path)).read("report.json"))


def pixels(path: Path) -> xr.Dataset:
    return xr.open_zarr(path.with_suffix(".zarr"), group=GROUP).load()


@pytest.mark.slow
def test_two_months_of_a_scheduled_job(difffusr, configure, own_archive):
    february = month(configure, own_archive, "2020-02-01", "2020-02-29")
    assert difffusr("run", february).code == 0
    planned = {shard.name for shard in read_plan(staging_of(load_config(february))).shards}
    first, report = pixels(february), report_of(february)
    assert report["shards"]["written"] == len(planned)
    assert not report["rewritten"]

    # unchanged: nothing is computed, nothing is published
    again = difffusr("run", february)
    assert again.code == 0
    report = report_of(february)
    assert (report["chips"]["computed"], report["shards"]["written"]) == (0, 0)
    assert "nothing has changed" in again.out

    # one scene replaced: its shards and no others
    reprocessed(own_archive, SOUTH)
    expected = shards_with(february, SOUTH)
    assert 0 < len(expected) < len(planned)
    open_before = xr.open_zarr(february.with_suffix(".zarr"), group=GROUP)
    replaced = difffusr("run", february)
    assert replaced.code == 0, replaced.err
    report = report_of(february)
    assert set(report["rewritten"]) == expected
    assert set(report["rewritten"].values()) == {"scene has a new processing baseline"}
    assert report["shards"]["written"] == len(expected)
    assert "scene has a new processing baseline" in replaced.err
    second = pixels(february)
    assert open_before.load().identical(first)  # who had opened the cube before still reads what it was
    changed = (second.reflectance != first.reflectance).any("band") & first.reflectance.notnull().any("band")
    assert changed.any()
    south = second.source == number_of(february, SOUTH)
    assert not (changed & ~(south | (first.source == number_of(february, SOUTH)))).sum() > 0.2 * changed.sum()

    # the next month joins; the first stays as it is
    march = month(configure, own_archive, "2020-03-01", "2020-03-31")
    assert difffusr("run", march).code == 0
    report = report_of(march)
    assert report["shards"]["written"] == len(planned)
    assert not report["rewritten"]
    both = pixels(march)
    assert [str(time)[:7] for time in both.time.values] == ["2020-02", "2020-03"]
    assert both.reflectance.isel(time=[0]).identical(second.reflectance)
    # and each month's job now has nothing to do
    for path in (march, month(configure, own_archive, "2020-02-01", "2020-02-29")):
        assert difffusr("run", path).code == 0
        assert report_of(path)["shards"]["written"] == 0

    told = difffusr("history", march)
    assert told.code == 0
    assert [line.split()[0] for line in told.out.splitlines() if line.strip()[:1].isdigit()] or "revision" in told.out


def number_of(path: Path, scene: str) -> int:
    scenes = Cube(Storage(str(path.with_suffix(".zarr")))).scenes
    return next(number for number, facts in scenes.items() if facts["id"] == scene)
