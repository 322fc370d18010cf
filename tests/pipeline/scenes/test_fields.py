"""A scene is found for areas on both sides of 180°, however its footprint is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box, mapping
from stac_items import collection_file, config, item, made_item, needs_items

from difffusr.pipeline.geo.globe import tile_footprint
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.scenes.fields import footprint_of, placed_footprint
from difffusr.pipeline.scenes.search import find_scenes

#: Most of tile 01KAB, which lies on both sides.
RING = [(179.3, -17.2), (180.2, -17.19), (180.22, -16.3), (179.32, -16.31)]


def ring(*shifts: float, backwards: bool = False, height: tuple[float, ...] = ()) -> list[Any]:
    """The corners of RING, each with its longitude shifted."""
    corners = [[lon + shift, lat, *height] for (lon, lat), shift in zip(RING, shifts * (4 // len(shifts)), strict=True)]
    corners = corners[::-1] if backwards else corners
    return [*corners, corners[0]]


WHOLE = Polygon(RING)
HERE = WHOLE.intersection(box(0, -90, 180, 90))
BEYOND = WHOLE.intersection(box(180, -90, 360, 90))
OTHER_SIDE = shapely.transform(BEYOND, lambda x, y: (x - 360, y), interleaved=False)

FOOTPRINTS: dict[str, Any] = {
    "in one piece to 180.1": {"type": "Polygon", "coordinates": [ring(0)]},
    "in one piece from -180.9": {"type": "Polygon", "coordinates": [ring(-360)]},
    "at 539 degrees": {"type": "Polygon", "coordinates": [ring(360)]},
    "within 180": {"type": "Polygon", "coordinates": [ring(0, -360, -360, 0)]},
    "within 180, backwards": {"type": "Polygon", "coordinates": [ring(0, -360, -360, 0, backwards=True)]},
    "backwards beyond": {"type": "Polygon", "coordinates": [ring(0, backwards=True)]},
    "with heights": {"type": "Polygon", "coordinates": [ring(0, -360, -360, 0, height=(120.0,))]},
    "split": mapping(MultiPolygon([HERE, OTHER_SIDE])),
    "split, the other first": mapping(MultiPolygon([OTHER_SIDE, HERE])),
    "split, both beyond 180": mapping(MultiPolygon([HERE, BEYOND])),
    "a MultiPolygon of one": {"type": "MultiPolygon", "coordinates": [[ring(0)]]},
    "a MultiPolygon of one within 180": {"type": "MultiPolygon", "coordinates": [[ring(0, -360, -360, 0)]]},
}

EAST, WEST = [179.4, -16.8, 179.6, -16.4], [-179.99, -16.8, -179.95, -16.4]


def of_tile_1(geometry: Any) -> dict[str, Any]:
    one = made_item(tile="01KAB")
    one["geometry"] = geometry
    return one


@pytest.mark.parametrize("geometry", FOOTPRINTS.values(), ids=FOOTPRINTS.keys())
def test_areas_on_both_sides_find_it(tmp_path: Path, geometry: Any) -> None:
    one = of_tile_1(geometry)
    file = collection_file(tmp_path, [one])
    for bbox in (EAST, WEST, [179.9, -16.8, -179.95, -16.4]):
        (scene,) = find_scenes(config({"bbox": bbox}, items=file))
        assert scene.footprint.area == pytest.approx(WHOLE.area)
        assert scene.footprint.bounds == (-180, pytest.approx(-17.2), 180, pytest.approx(-16.3))
        assert scene.assets["B02"].shape is not None  # the item's place agrees with it
    for bbox in ([0, -17, 1, -16], [178.2, -16.8, 179.2, -16.4], [-179.7, -16.8, -179, -16.4], [179.4, 16, 179.6, 17]):
        with pytest.raises(CatalogError, match="1 outside the area"):
            find_scenes(config({"bbox": bbox}, items=file))


@needs_items
@pytest.mark.parametrize("name", ["antimeridian_", "stactools_S2A_T01KAB"])
@pytest.mark.parametrize("turn", [0, 360, -360])
def test_real_footprints_are_found_on_both_sides(tmp_path: Path, name: str, turn: int) -> None:
    one = item(name)
    whole = footprint_of(one)
    one["geometry"] = mapping(
        shapely.transform(shapely.geometry.shape(one["geometry"]), lambda x, y: (x + turn, y), interleaved=False)
    )
    assert footprint_of(one).symmetric_difference(whole).area < 1e-9
    file = collection_file(tmp_path, [one])
    for side in (box(-180, -90, 0, 90), box(0, -90, 180, 90)):
        west, south, east, north = whole.intersection(side).buffer(-1e-4).bounds
        assert find_scenes(config({"bbox": [west, south, east, north]}, items=file, collection=None))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    tile=st.sampled_from(["01KAB", "60KYG", "01WCR", "60XWT", "01XDP", "33XWR", "31XEM", "01CDH", "60CWS"]),
    turn=st.sampled_from([-360, 0, 360]),
    x=st.floats(0.05, 0.95),
    y=st.floats(0.05, 0.95),
    one_piece=st.booleans(),
)
def test_any_place_in_a_tile_finds_its_scene(tile: str, turn: int, x: float, y: float, one_piece: bool) -> None:
    """Tiles at 180° and up to 84° N and 80° S: a footprint turned anywhere is the tile's ground again."""
    ground = tile_footprint(tile)
    drawn = ground
    if one_piece and ground.geom_type == "MultiPolygon":  # put together beyond 180
        drawn = shapely.union_all(
            [part if part.bounds[0] > 0 else shapely.transform(part, _east, interleaved=False) for part in ground.geoms]
        )
    one = made_item(tile=tile)
    one["geometry"] = mapping(shapely.transform(drawn, lambda a, b: (a + turn, b), interleaved=False))
    found = placed_footprint(one, tile)
    assert found.symmetric_difference(ground).area < 1e-6 * ground.area
    for part in getattr(ground, "geoms", [ground]):
        west, south, east, north = part.bounds
        point = shapely.Point(west + x * (east - west), south + y * (north - south))
        assert found.buffer(1e-9).contains(point) == part.buffer(1e-9).contains(point)


def _east(x: Any, y: Any) -> tuple[Any, Any]:
    return x + 360, y


def test_a_footprint_is_cut_to_where_its_tile_can_be() -> None:
    one = made_item()
    one["geometry"] = mapping(box(-60, -80, 60, 80))
    footprint = placed_footprint(one, "32TNT")
    assert footprint.area < 15
    assert footprint.covers(tile_footprint("32TNT"))
