"""A file that cannot be read is its scene's fault: the next best scene is used, and the next run knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.plan.files import read_plan
from difffusr.pipeline.scenes.synthetic.world import DemoWorld, write_demo_world
from difffusr.pipeline.storage.places import staging_of


@pytest.fixture
def own_world(tmp_path: Path) -> DemoWorld:
    """A world whose files may be damaged."""
    return write_demo_world(tmp_path / "world", seed=11, size_m=(1200, 1800))


def scenes_of(path: Path) -> set[str]:
    """The scenes of the last run's plan."""
    return {scene for chip in read_plan(staging_of(load_config(path))).chips for scene in chip.scenes}


def test_another_scene_takes_the_place_of_one_with_a_missing_file_until_it_is_back(difffusr, configure, own_world):
    source, draft = {"static_catalog": str(own_world.catalog)}, {"sampler": "draft", "sampler_steps": None}
    path = configure(source=source, model=draft)
    best = decide(load_config(path)).chips[0].scenes[0]
    (file,) = own_world.catalog.parent.glob(f"items/{best}/B05.tif")
    file.rename(file.with_suffix(".away"))
    ended = difffusr("run", path)
    assert ended.code == 0, ended.err
    (said,) = [line for line in ended.err.splitlines() if "set aside" in line]
    assert f"scene {best} is set aside in " in said
    assert "B05" in said
    assert best not in scenes_of(path)
    seen = xr.open_zarr(path.with_suffix(".zarr"), group="32632/0", mask_and_scale=False).quality.values
    assert Quality.FAILED not in seen
    assert Quality.CLEAR in seen

    again = difffusr("run", path)
    assert "0 computed" in again.out
    assert "nothing has changed" in again.out
    file.with_suffix(".away").rename(file)
    back = difffusr("run", path)
    assert back.code == 0, back.err
    assert "set aside" not in back.err
    assert best in scenes_of(path)
