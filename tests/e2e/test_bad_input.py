"""Whatever a user can get wrong ends in one line that says what to do, and the right exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio


def said_once(ended, code: int, *fragments: str) -> None:
    """One line on standard error, no traceback, the exit code, and the fragments in it."""
    assert ended.code == code, ended.err + ended.out
    assert "Traceback" not in ended.err + ended.out
    errors = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, ended.err
    for fragment in fragments:
        assert fragment in errors[0], (fragment, errors[0])


@pytest.fixture
def own_world(world, tmp_path):
    """A copy of the world's catalogue that a test may damage; only the first date."""
    shutil.copytree(world.catalog.parent, tmp_path / "copy")
    collection = tmp_path / "copy" / "collection.json"
    content = json.loads(collection.read_text())
    content["links"] = [k for k in content["links"] if k["rel"] != "item" or "20230605" in k["href"]]
    collection.write_text(json.dumps(content))
    return tmp_path / "copy" / "catalog.json"


def files_of(catalog: Path, band: str) -> list[Path]:
    return sorted(catalog.parent.glob(f"items/*20230605*/{band}.tif"))


def test_an_unknown_key_is_named_with_what_was_meant(difffusr, configure):
    said_once(difffusr("run", configure(compute={"actorsmax": 2})), 2, "compute.actorsmax", "actors_max")


def test_a_wrong_value_is_named_with_what_is_allowed(difffusr, configure):
    said_once(difffusr("run", configure(compute={"batch": "four"})), 2, "compute.batch", "four", "integer")


def test_a_missing_configuration_is_named(difffusr, tmp_path):
    said_once(difffusr("plan", tmp_path / "nowhere.yaml"), 2, "nowhere.yaml")


def test_wrong_usage_ends_with_2(difffusr):
    assert difffusr("run").code == 2
    assert difffusr("fly", "x.yaml").code == 2


def test_an_empty_search_says_what_was_searched(difffusr, configure):
    path = configure(period={"start": "2001-01-01", "end": "2001-01-31"})
    said_once(difffusr("run", path), 1, "2001-01", "catalog.json")


def test_an_asset_that_no_item_has_is_named(difffusr, configure, own_world):
    for item in own_world.parent.glob("items/*/*.json"):
        content = json.loads(item.read_text())
        del content["assets"]["nir"]
        item.write_text(json.dumps(content))
    said_once(difffusr("run", configure(source={"static_catalog": str(own_world)})), 1, "B08")


def test_files_that_are_not_there_are_named(difffusr, configure, own_world):
    for file in files_of(own_world, "B01"):
        file.unlink()
    ended = difffusr("run", configure(source={"static_catalog": str(own_world)}))
    said_once(ended, 1, "all 12 chips failed", "B01.tif")


def test_a_truncated_file_costs_its_chips_and_no_more(difffusr, configure, own_world):
    file = files_of(own_world, "B05")[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    path = configure(source={"static_catalog": str(own_world)})
    ended = difffusr("run", path)
    assert ended.code == 3, ended.err
    assert "B05.tif" in ended.err
    assert "damaged" in ended.err or "cannot be opened" in ended.err
    assert "Traceback" not in ended.err
    assert difffusr("verify", path).code == 1


def test_a_file_in_another_crs_is_refused(difffusr, configure, own_world):
    for file in files_of(own_world, "B01"):
        with rasterio.open(file) as old:
            profile, data = old.profile, old.read()
        profile.update(crs="EPSG:32633", driver="GTiff")
        for name in ("blockxsize", "blockysize", "tiled", "interleave"):
            profile.pop(name, None)
        with rasterio.open(file, "w", **profile) as new:
            new.write(data)
    ended = difffusr("run", configure(source={"static_catalog": str(own_world)}))
    said_once(ended, 1, "EPSG:32633", "EPSG:32632")


def test_weights_that_are_no_weights_are_refused(difffusr, configure, tmp_path):
    wrong = tmp_path / "wrong.ckpt"
    wrong.write_bytes(np.random.default_rng(0).bytes(4096))
    said_once(difffusr("run", configure(model={"stage1": str(wrong)})), 1, "wrong.ckpt")


def test_weights_of_the_other_stage_are_refused(difffusr, configure):
    from kernels.model import shipped

    said_once(difffusr("run", configure(model={"stage1": shipped("small", "fusion")})), 1, "holds no stage 1")


def test_a_store_that_cannot_be_written_is_named_before_anything_is_computed(difffusr, configure, tmp_path):
    (tmp_path / "file").write_text("")
    path = configure(store={"url": str(tmp_path / "file" / "cube.zarr"), "staging": str(tmp_path / "staging")})
    said_once(difffusr("run", path), 1, "cube.zarr", "cannot be written")


def test_a_store_of_an_unknown_kind_is_named(difffusr, configure):
    ended = difffusr("run", configure(store={"url": "gopher://somewhere/cube.zarr"}))
    assert ended.code in (1, 2)
    assert "gopher" in ended.err
    assert "Traceback" not in ended.err


def test_verify_without_a_cube_says_so(difffusr, configure):
    said_once(difffusr("verify", configure()), 1, "no cube")


def test_status_without_a_plan_says_so(difffusr, configure):
    said_once(difffusr("status", configure()), 1, "no plan")


def test_a_cube_of_other_ground_is_not_overwritten(difffusr, configure, finished):
    other = configure(grid={"shard_px": 256}, store={"url": str(finished.with_suffix(".zarr"))})
    said_once(difffusr("run", other), 2, "store.url", "already holds")


def test_a_cluster_that_does_not_answer_is_named(configure):
    """In a process of its own: here Ray is running already."""
    path = configure(compute={"address": "127.0.0.1:9"})
    ended = subprocess.run(
        [Path(sys.executable).parent / "difffusr", "run", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "compute.address" in ended.stderr
    assert "127.0.0.1:9" in ended.stderr
    assert "Traceback" not in ended.stderr
