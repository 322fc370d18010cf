"""The small world, its scenes and their catalogue."""

from __future__ import annotations

import pytest
from small_world import SMALL_M

from difffusr.pipeline.scenes.synthetic.archive import write_catalog
from difffusr.pipeline.scenes.synthetic.sensor import render_scenes
from difffusr.pipeline.scenes.synthetic.world import generate_world


@pytest.fixture(scope="session")
def world():
    return generate_world(size_m=SMALL_M)


@pytest.fixture(scope="session")
def scenes(world):
    return render_scenes(world)


@pytest.fixture(scope="session")
def catalog(scenes, tmp_path_factory):
    return write_catalog(scenes, tmp_path_factory.mktemp("archive"))
