"""Where a run keeps what."""

from __future__ import annotations

import pytest

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.storage.places import cube_staging_of, staging_of, storage_of


@pytest.mark.parametrize("url", ["/maps/cube.zarr", "icechunk+/maps/cube.icechunk"])
def test_a_cube_a_folder_beside_it_and_one_for_each_period(url):
    config = RunConfig.model_validate(
        {
            "name": "run",
            "area": {"tiles": ["32TMT"]},
            "period": {"start": "2023-06-01", "end": "2023-06-30"},
            "source": {"static_catalog": "catalog.json"},
            "store": {"url": url, "storage_options": {"anon": True}},
        }
    )
    places = storage_of(config), cube_staging_of(config), staging_of(config)
    assert [place.url for place in places] == [url, "/maps/cube.staging", "/maps/cube.staging/runs/2023-06"]
    assert all(place.options == {"anon": True} for place in places)
