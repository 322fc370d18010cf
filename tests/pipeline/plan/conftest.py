"""Real scenes."""

from __future__ import annotations

import pytest
from planned_areas import OVERVIEWS, SEEN, config

from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.search import find_scenes


@pytest.fixture(scope="session")
def real_scenes(tmp_path_factory) -> list[Scene]:
    if not OVERVIEWS.exists():
        pytest.skip(f"no real scenes: {OVERVIEWS.parent} is not there")
    return find_scenes(config(tmp_path_factory.mktemp("real")), bands=SEEN)
