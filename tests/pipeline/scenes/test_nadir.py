"""Angles of a scene from the best that is known: the granule's metadata, the item's means, nothing."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beside import SHARED

from difffusr.kernels.bands import BANDS
from difffusr.kernels.brdf import c_factor, nominal_sun_zenith
from difffusr.pipeline.scenes import Scene
from difffusr.pipeline.scenes.angles import MeanAngles, granule_metadata, mean_angles
from difffusr.pipeline.scenes.granule import read_granule
from difffusr.pipeline.scenes.item import scene_from_item
from difffusr.pipeline.scenes.nadir import nadir_of
from difffusr.pipeline.scenes.synthetic import write_two_orbits

ANGLES = MeanAngles(34.2, 151.8, 8.1, 286.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], Path]]:
    """Items of a small world with metadata of granules, and their files."""
    folder = tmp_path_factory.mktemp("world")
    write_two_orbits(folder, size_m=(600, 600))
    return [(json.loads(path.read_text()), path) for path in sorted((folder / "archive" / "items").glob("*/*.json"))]


def scene_of(item: dict[str, Any], path: Path) -> Scene:
    return scene_from_item(item, str(path))


def test_the_granules_own_angles_are_best(world) -> None:
    item, path = world[0]
    scene = scene_of(item, path)
    assert scene.granule is not None
    found = nadir_of(scene, "scene")
    granule = read_granule(Path(scene.granule).read_bytes(), "it")
    assert (found.source, found.why) == ("granule", "")
    assert (found.left, found.top, found.step_m) == (granule.left, granule.top, granule.step_m)
    for number, band in enumerate(BANDS):
        np.testing.assert_allclose(found.factor[number], granule.factors(band), rtol=1e-6)
    assert not np.allclose(found.factor, 1, atol=0.005)


def test_the_sun_can_be_put_at_noon(world) -> None:
    scene = scene_of(*world[0])
    own, noon = nadir_of(scene, "scene").factor, nadir_of(scene, "noon").factor
    latitude = (scene.footprint.bounds[1] + scene.footprint.bounds[3]) / 2
    granule = read_granule(Path(str(scene.granule)).read_bytes(), "it")
    np.testing.assert_allclose(noon[0], granule.factors("B01", float(nominal_sun_zenith(latitude))), rtol=1e-6)
    assert not np.allclose(own, noon, atol=1e-4)


def spoilt(kind: str, scene: Scene, folder: Path) -> Scene:
    place = folder / "MTD_TL.xml"
    data = Path(str(scene.granule)).read_bytes()
    if kind == "cut short":
        place.write_bytes(data[: len(data) // 2])
    elif kind == "a web page":
        place.write_text("<html><body>Sign in</body></html>")
    elif kind == "of another zone":
        place.write_bytes(data.replace(b"EPSG:32632", b"EPSG:32633"))
    elif kind == "no angles":
        place.write_text("<n1:Level-2A_Tile_ID xmlns:n1='x'><a/></n1:Level-2A_Tile_ID>")
    elif kind == "a bomb":
        place.write_bytes(gzip.compress(b"<a>" + b" " * 30_000_000))
    return replace(scene, granule=str(place) if kind != "not named" else None)


KINDS = ["missing", "cut short", "a web page", "of another zone", "no angles", "a bomb", "not named"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_them_the_items_means_are_used(world, tmp_path: Path, kind: str) -> None:
    scene = replace(spoilt(kind, scene_of(*world[0]), tmp_path), angles=ANGLES)
    found = nadir_of(scene, "scene")
    assert found.source == "item"
    assert found.why
    assert "\n" not in found.why
    assert found.factor.shape == (12, 1, 1)
    wanted = c_factor("B08", ANGLES.sun_zenith, ANGLES.view_zenith, ANGLES.sun_azimuth - ANGLES.view_azimuth)
    assert found.factor[BANDS.index("B08")].item() == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_with_neither_nothing_is_done(world, tmp_path: Path, kind: str) -> None:
    scene = replace(spoilt(kind, scene_of(*world[0]), tmp_path), angles=None)
    found = nadir_of(scene, "scene")
    assert found.source == "nothing"
    assert (found.factor == 1).all()


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"view:azimuth": None}, False),
        ({"view:incidence_angle": "7"}, False),
        ({"view:incidence_angle": 95}, False),
        ({"view:sun_elevation": -3}, False),
        ({"view:sun_elevation": float("nan")}, False),
        ({"view:sun_azimuth": True}, False),
        ({"view:azimuth": -73.9}, True),
    ],
)
def test_mean_angles_are_those_of_the_view_extension(changes: dict[str, Any], known: bool) -> None:
    stated = {
        "view:sun_elevation": 55.8, "view:sun_azimuth": 151.8, "view:incidence_angle": 8.1, "view:azimuth": 286.1,
    }  # fmt: skip
    found = mean_angles(stated | changes)
    assert (found is not None) == known
    if found is not None:
        assert found == pytest.approx(ANGLES)


@pytest.mark.parametrize(
    ("assets", "key"),
    [
        ({"granule_metadata": {"href": "a.xml"}}, "granule_metadata"),
        ({"granule-metadata": {"href": "a.xml"}}, "granule-metadata"),
        ({"metadata": {"href": "metadata.xml"}}, "metadata"),
        ({"metadata": {"href": "b.xml"}, "granule_metadata": {"href": "a.xml"}}, "granule_metadata"),
        ({"granule_metadata": {"title": "no href"}, "metadata": {"href": "b.xml"}}, "metadata"),
        ({"product_metadata": {"href": "p.xml"}, "datastrip_metadata": {"href": "d.xml"}}, None),
        ({"granule_metadata": "a.xml"}, None),
        ({}, None),
    ],
)
def test_the_metadata_are_found_by_every_providers_key(assets: dict[str, Any], key: str | None) -> None:
    assert granule_metadata(assets) == key


def test_in_a_products_folder_they_lie_beside_the_pixels(world) -> None:
    item, path = world[0]
    item = json.loads(json.dumps(item))
    del item["assets"]["granule_metadata"]
    home = "GRANULE/L2A_T32TMT_A032/IMG_DATA/R{}m/T32TMT_20230610T103031_{}_{}m.jp2"
    names = {"blue": ("B02", 10), "green": ("B03", 10)}
    for key, (band, gsd) in names.items():
        item["assets"][key] = {"href": home.format(gsd, band, gsd), "type": "image/jp2"}
    item["properties"]["s2:processing_baseline"] = "05.09"
    scene = scene_from_item(item, str(path), bands=("B02", "B03"))
    assert scene.granule == str(path.parent / "GRANULE/L2A_T32TMT_A032/MTD_TL.xml")


@pytest.mark.skipif(not SHARED.exists(), reason=f"no real items: {SHARED} is not there")
@pytest.mark.parametrize("pattern", ["earthsearch_v1*", "cdse*", "planetary*", "pc_*", "stactools*"])
def test_real_items_name_theirs(pattern: str) -> None:
    for path in (SHARED / "data" / "stac_items").rglob(f"{pattern}.json"):
        item = json.loads(path.read_text())
        if item.get("type") == "Feature" and any("granule" in key for key in item["assets"]):
            assert granule_metadata(item["assets"]) is not None, path.name


def test_a_scene_without_correction_has_the_key_of_its_version(world) -> None:
    scene = scene_of(*world[0])
    assert scene.pixels_key() == scene.version_key()
