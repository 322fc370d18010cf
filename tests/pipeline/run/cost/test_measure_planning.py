"""Planning as it is measured: on a world of two orbits, and bytes of overviews on files of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from difffusr.pipeline.plan.decision import decide
from difffusr.pipeline.run.cost import measure_planning as measure_planning_module
from difffusr.pipeline.run.cost.measure_planning import _overview_bytes, measure_planning
from difffusr.pipeline.run.cost.sample import Sample, generated_plan
from difffusr.pipeline.scenes import network_mask, rules


@pytest.fixture
def planned(small_run):
    config = small_run()
    return config, decide(config)


def measured(planned, sample=None, **wishes):
    config, plan = planned
    config = config.model_copy(update={"scenes": config.scenes.model_copy(update=wishes)})
    return measure_planning(config, sample or Sample.of(config, plan))


@pytest.mark.parametrize("balance", ["none", "nbar", "full"])
@pytest.mark.parametrize("composite", ["none", "geomedian"])
def test_what_balance_needs_is_measured_and_no_more(planned, balance, composite):
    found = measured(planned, balance=balance, composite=composite)
    assert (found.masks, found.balance) == ("scl", balance)
    assert found.look.seconds > 0
    assert found.look.bytes > 0
    assert found.look.requests == 0  # on disk
    if balance != "none":
        assert 100_000 < found.angles.bytes < 2_000_000
        assert found.angles.seconds > 0
    if balance == "full":
        assert found.overviews.bytes > found.look.bytes
        assert 0 < found.overlap_seconds < 1


def test_a_scene_without_metadata_takes_no_bytes_of_them(planned):
    config, plan = planned
    sample = Sample.of(config, plan)
    bare = {name: replace(scene, granule=None) for name, scene in sample.scenes.items()}
    assert measured(planned, replace(sample, scenes=bare), balance="nbar").angles.bytes == 0
    lost = {name: replace(scene, granule="/nowhere/MTD_TL.xml") for name, scene in sample.scenes.items()}
    assert measured(planned, replace(sample, scenes=lost), balance="nbar").angles.bytes == 0


def test_a_scene_without_classification_is_looked_at_by_its_coarsest_band(planned):
    config, plan = planned
    sample = Sample.of(config, plan)
    bare = {name: replace(scene, scl=None) for name, scene in sample.scenes.items()}
    assert measured(planned, replace(sample, scenes=bare)).look.bytes > 0


def test_a_mask_by_the_items_own_probability_takes_its_file_too(planned):
    config, plan = planned
    sample = Sample.of(config, plan)
    cloudy = {name: replace(scene, cloud=scene.scl) for name, scene in sample.scenes.items()}
    by_scl, by_asset = (measured(planned, replace(sample, scenes=cloudy), masks=masks) for masks in ("scl", "asset"))
    assert (by_scl.masks, by_asset.masks) == ("scl", "asset")
    assert by_asset.look.bytes > by_scl.look.bytes


def test_a_mask_by_a_network_takes_the_bands_that_it_sees_and_is_made_anew(planned, monkeypatch):
    seen = []

    def network(image):
        seen.append(list(image))
        return np.zeros(image["blue"].shape, np.uint8)

    monkeypatch.setattr(network_mask, "run_network", network)
    monkeypatch.setattr(rules, "network_version", lambda: "1.0")
    network_mask._fetched.cache_clear()
    found = measured(planned, masks="csmask", balance="full")
    network_mask._fetched.cache_clear()
    assert found.masks == "csmask"
    scenes = len({scene for chip in Sample.of(*planned).chips for scene in chip.scenes})
    assert len(seen) == min(scenes, 4)  # once a scene: what `balance` needs of it is kept
    assert found.look.bytes > measured(planned).look.bytes


@pytest.mark.parametrize(
    ("wishes", "requests"), [({}, (6, 0, 0)), ({"balance": "nbar"}, (6, 1, 0)), ({"balance": "full"}, (6, 1, 26))]
)
def test_over_a_network_a_raster_takes_two_requests_and_a_document_one(planned, wishes, requests, monkeypatch):
    near = measured(planned, **wishes)
    monkeypatch.setattr(measure_planning_module, "is_remote", lambda href: True)
    far = measured(planned, **wishes)
    steps = (far.look, far.angles, far.overviews)
    # A look takes the classification, and the two bands that its item's offset is doubted by.
    assert tuple(step.requests if step else 0 for step in steps) == requests
    assert far.look.bytes == pytest.approx(near.look.bytes + 3 * 16_384)


def test_a_made_up_scene_will_do(small_run, tmp_path):
    config = small_run(balance="full")
    made = generated_plan(config, tmp_path)
    found = measure_planning(config, Sample.of(config, made))
    assert found.balance == "full"
    assert found.look.bytes > 0


def raster(path, factors):
    """(1024, 1024) noise of 10 m pixels in blocks of 256, with overviews."""
    dice = np.random.default_rng(1)
    with rasterio.open(
        path, "w", driver="GTiff", width=1024, height=1024, count=1, dtype="uint16", tiled=True, blockxsize=256,
        blockysize=256, compress="deflate", transform=rasterio.Affine(10, 0, 600_000, 0, -10, 1_200_000),
        crs="EPSG:32632",
    ) as file:  # fmt: skip
        file.write(dice.integers(1, 10_000, (1024, 1024), np.uint16), 1)
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=128), rasterio.open(path, "r+") as file:
        file.build_overviews(factors, Resampling.nearest)
    return path


@pytest.mark.parametrize(
    ("factors", "step_m", "read"),
    [
        ([2, 4, 8, 16], 120, 8),
        ([2, 4, 8, 16], 240, 16),
        ([2, 4, 8, 16], 60, 4),
        ([2, 4], 120, 4),
        ([2, 4, 8], 20, 2),
        ([8], 60, 1),
        ([], 120, 1),
    ],
)
def test_an_overview_is_as_large_as_its_pixels(factors, step_m, read, tmp_path):
    path = raster(tmp_path / "a.tif", factors)
    with rasterio.open(path) as file:
        size = _overview_bytes(file, step_m, str(path))
    # Noise of 14 bits does not compress below that.
    assert size == pytest.approx((1024 / read) ** 2 * 13.5 / 8, rel=0.15)
