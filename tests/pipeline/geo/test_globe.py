"""Shapes on the globe lie where they should, and are cut at 180°."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry
from stac_items import every_item, needs_items

from difffusr.pipeline.geo.globe import cut_at_180, in_degrees, tile_epsg, tile_footprint
from difffusr.pipeline.geo.zones import to_zone
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.item import scene_from_item


@needs_items
def test_tiles_lie_where_their_letters_say() -> None:
    for one in every_item():
        scene = scene_from_item(one, "/data/item.json")
        # Footprints have straight edges between their corners, tiles bent ones.
        assert tile_footprint(scene.tile).buffer(0.02).covers(scene.footprint), scene.id
        assert tile_footprint(scene.tile).area < 10
    with pytest.raises(CatalogError, match="zone 48 has no column A"):
        tile_footprint("48QAE")


@pytest.mark.parametrize(("tile", "epsg"), [("48QUE", 32648), ("01WCR", 32601), ("20LMR", 32720), ("32TPS", 32632)])
def test_a_tile_lies_in_its_zone_as_a_square(tile: str, epsg: int) -> None:
    assert tile_epsg(tile) == epsg
    left, bottom, right, top = to_zone(tile_footprint(tile), epsg).bounds
    assert (right - left, top - bottom) == pytest.approx((109_920, 109_960), abs=30)


@pytest.mark.parametrize("tile", ["01WCR", "60VUK", "01KAB"])
def test_a_tile_over_180_has_a_part_on_either_side(tile: str) -> None:
    footprint = tile_footprint(tile)
    assert footprint.is_valid
    assert footprint.area < 10
    assert -180 <= footprint.bounds[0] <= footprint.bounds[2] <= 180


def unrolled(geometry: BaseGeometry) -> BaseGeometry:
    """The shape with longitudes from 0 to 360, its parts side by side."""
    parts = getattr(geometry, "geoms", [geometry])
    return shapely.union_all([shapely.transform(part, _eastwards, interleaved=False) for part in parts])


def _eastwards(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(x < 0, x + 360, x), y


@given(
    middle=st.floats(178, 182),
    lat=st.floats(-80, 80),
    angles=st.lists(st.floats(0, 6.28), min_size=3, max_size=8, unique=True),
    radius=st.floats(0.1, 3),
)
@settings(max_examples=200, deadline=None)
def test_a_polygon_over_180_is_the_same_ground_in_two_parts(
    middle: float, lat: float, angles: list[float], radius: float
) -> None:
    turns = np.array(sorted(angles))
    corners = np.column_stack([middle + radius * np.cos(turns), lat + radius * np.sin(turns)])
    whole = shapely.make_valid(Polygon(corners))
    if whole.geom_type != "Polygon" or whole.area < 1e-6:
        return
    lon, at = shapely.get_coordinates(whole).T
    cut = cut_at_180(Polygon(np.column_stack([(lon + 180) % 360 - 180, at])))
    assert cut.is_valid
    assert -180 <= cut.bounds[0] <= cut.bounds[2] <= 180
    assert cut.area == pytest.approx(whole.area, rel=1e-6)
    assert unrolled(cut).symmetric_difference(whole).area < 1e-6 * whole.area


def test_what_touches_180_or_crosses_itself_there_is_cut_as_well() -> None:
    touching = Polygon([(180, 10), (-179, 10), (-179, 11), (180, 11)])
    assert shapely.make_valid(cut_at_180(touching)).area == pytest.approx(1)
    bow = Polygon([(179, 10), (-179, 11), (-179, 10), (179, 11)])
    assert cut_at_180(bow).is_valid
    assert cut_at_180(bow).area == pytest.approx(1)


def test_what_does_not_cross_180_stays_as_it_is() -> None:
    cut_already = shapely.MultiPolygon([box(179, 0, 180, 1), box(-180, 0, -179, 1)])
    for shape in (box(10, 46, 11, 47), box(-180, 0, -179, 1), cut_already):
        assert cut_at_180(shape) is shape


def test_boxes_of_chips_are_cut_only_where_they_cross() -> None:
    left, bottom = np.array([500_000.0, 760_000.0, 90_000.0, 500_000.0]), np.array([0.0, 0.0, 0.0, 9_000_000.0])
    bounds = np.column_stack([left, bottom, left + 150_000, bottom + 1920])
    shapes = in_degrees(bounds, np.array([32660, 32660, 32601, 32732], np.int32))
    assert [shape.geom_type for shape in shapes] == ["Polygon", "MultiPolygon", "MultiPolygon", "Polygon"]
    assert all(shape.is_valid for shape in shapes)
    assert [shape.bounds[2] - shape.bounds[0] for shape in shapes] == pytest.approx([1.35, 360, 360, 1.37], abs=0.01)
    # Zone 1 mirrors zone 60.
    assert shapes[1].area == pytest.approx(shapes[2].area, rel=0.01)
