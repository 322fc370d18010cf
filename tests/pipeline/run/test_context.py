"""A run holds its cube's lease from its beginning to its end, and begins only where it can write."""

from __future__ import annotations

import pytest
import yaml

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.run.context import Places, Run
from difffusr.pipeline.storage.lease import holder_of
from difffusr.pipeline.watch.pulse import read_status


class Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


@pytest.fixture
def config(tmp_path):
    content = {
        "area": {"tiles": ["32TMT"]},
        "period": {"start": "2023-06-01", "end": "2023-06-30"},
        "source": {"static_catalog": "catalog.json"},
        "store": {"url": "store/cube.zarr"},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(path)


def test_a_run_holds_the_lease_and_tells_its_status_until_it_ends(config):
    with Run.begun(config, Silent()) as run:
        holder = holder_of(run.places.cube_staging)
        assert holder is not None
        run.pulse.end("failed", "nothing but a test")
    assert holder_of(run.places.cube_staging) != holder
    status = read_status(run.staging)
    assert status is not None
    assert (status.run, status.state, status.why) == (config.name, "failed", "nothing but a test")


def test_a_run_s_own_folder_lies_below_that_of_its_cube(config):
    places = Places.of(config)
    assert places.staging.url == f"{places.cube_staging.url}/runs/{config.period.label}"


def test_a_store_that_cannot_be_written_is_known_before_the_lease_is_taken(config, tmp_path):
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot be written"), Run.begun(config, Silent()):
        pass
