"""A small world of two orbits, once for all who measure on it."""

from __future__ import annotations

from typing import Any

import pytest

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.scenes.synthetic import write_two_orbits


@pytest.fixture(scope="session")
def two_orbits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The sections of a configuration over it."""
    world = write_two_orbits(tmp_path_factory.mktemp("two-orbits") / "world", size_m=(1800, 1800))
    return {
        "name": "small",
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
    }


@pytest.fixture
def small_run(two_orbits, tmp_path):
    """Configurations over it, by their section `scenes`."""

    def made(**wishes: Any) -> RunConfig:
        store = {"url": str(tmp_path / "cube.zarr")}
        return RunConfig.model_validate({**two_orbits, "store": store, "scenes": wishes})

    return made
