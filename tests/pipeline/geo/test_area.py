"""However an area is drawn, in whatever file and CRS, it is the same ground."""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import shapely
from drawn_areas import FIJI, area_of, config_of, file_of, geojson, on_sheet, refused, share_not_common
from fresh_python import packages_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.geo.area import area_geometry
from difffusr.pipeline.ground.errors import ConfigError

GEOD = pyproj.Geod(ellps="WGS84")


def ground_m2(geometry: BaseGeometry) -> float:
    """The area on the ellipsoid. Short edges, because pyproj's are geodesics and ours are straight in degrees."""
    dense = shapely.orient_polygons(shapely.segmentize(geometry, 0.02))
    return float(GEOD.geometry_area_perimeter(dense)[0])


# ---- the same ground ------------------------------------------------------------------------------------------------


@st.composite
def sheets(draw: st.DrawFn) -> tuple[str, Polygon]:
    """A CRS, and a polygon with up to a few hundred kilometres across around a place that it is made for."""
    zone = draw(st.integers(1, 60))
    north = draw(st.booleans())
    lat = draw(st.floats(1, 82)) * (1 if north else -0.95)
    lon = -183 + 6 * zone + draw(st.floats(-3.2, 3.2))
    crs = draw(
        st.sampled_from(
            [
                f"EPSG:{(32600 if north else 32700) + zone}",
                f"+proj=laea +lat_0={lat:.3f} +lon_0={lon:.3f} +units=us-ft",
                f"+proj=lcc +lat_0={lat:.3f} +lat_1={lat - 3:.3f} +lat_2={lat + 3:.3f} +lon_0={lon:.3f}",
                "EPSG:3995" if north else "EPSG:3031",
                "EPSG:3857",
                "EPSG:3832",
            ]
        )
    )
    unit_m = pyproj.CRS(crs).axis_info[0].unit_conversion_factor
    centre = on_sheet(Point(lon, lat), crs)
    corners = draw(st.integers(3, 9))
    turns = np.linspace(0, 2 * np.pi, corners, endpoint=False) + draw(st.floats(0, 1))
    radii = draw(st.lists(st.floats(5e3, 150e3), min_size=corners, max_size=corners))
    steps = np.array(radii)[:, None] / unit_m * np.column_stack([np.cos(turns), np.sin(turns)])
    return crs, Polygon(np.array([centre.x, centre.y]) + steps)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sheet=sheets())
def test_an_area_drawn_in_any_crs_is_the_same_ground_in_degrees(
    tmp_path_factory: pytest.TempPathFactory, sheet: tuple[str, Polygon]
) -> None:
    crs, drawn = sheet
    folder = tmp_path_factory.mktemp("area")
    area = area_of(folder, file=file_of(folder, drawn, crs))
    to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    outline = np.column_stack(to_degrees.transform(*shapely.segmentize(drawn, drawn.length / 3000).exterior.xy))
    assert ground_m2(area) == pytest.approx(abs(GEOD.polygon_area_perimeter(*outline.T)[0]), rel=1e-3)
    # On a sheet around it, which has no 180°, the parts lie side by side again.
    local = f"+proj=laea +lat_0={outline[0, 1]} +lon_0={outline[0, 0]}"
    parts = [on_sheet(shapely.segmentize(part, 0.01), local) for part in getattr(area, "geoms", [area])]
    assert share_not_common(on_sheet(Polygon(outline), local), shapely.union_all(parts)) < 1e-3


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:3035", "EPSG:2154", "EPSG:27700", "EPSG:2263", "EPSG:3857"])
def test_the_edges_are_those_of_the_sheet_within_a_metre(tmp_path: Path, crs: str) -> None:
    use = pyproj.CRS(crs).area_of_use
    assert use is not None
    middle = on_sheet(Point((use.west + use.east) / 2, (use.south + use.north) / 2), crs)
    unit_m = pyproj.CRS(crs).axis_info[0].unit_conversion_factor
    square = middle.buffer(100e3 / unit_m, cap_style="square")
    area = area_of(tmp_path, file=file_of(tmp_path, square, crs))
    finer = on_sheet(shapely.segmentize(area, 0.001), crs)
    assert finer.hausdorff_distance(square) * unit_m < np.hypot(1, 1) + 0.2
    assert len(area.exterior.coords) < 300, "no more vertices than the bend needs"


# ---- across 180° ----------------------------------------------------------------------------------------------------


def split_geojson(folder: Path) -> dict[str, str]:
    return {"geojson": geojson(folder, shapely.geometry.mapping(FIJI))}


def wide_geojson(folder: Path) -> dict[str, str]:
    return {"geojson": geojson(folder, shapely.geometry.mapping(box(177, -20, 183, -15)))}


def half_and_half_geojson(folder: Path) -> dict[str, str]:
    halves = [{"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(part)}
              for part in (box(177, -20, 181, -15), box(-179.5, -20, -177, -15))]  # fmt: skip
    return {"geojson": geojson(folder, {"type": "FeatureCollection", "features": halves})}


def pacific_mercator(folder: Path) -> dict[str, str]:
    return {"file": file_of(folder, on_sheet(box(177, -20, 183, -15), 3832), 3832)}


def pseudo_mercator_beyond_its_edge(folder: Path) -> dict[str, str]:
    degree = 20037508.342789244 / 180
    _, south, _, north = on_sheet(box(177, -20, 178, -15), 3857).bounds
    return {"file": file_of(folder, box(177 * degree, south, 183 * degree, north), 3857)}


def shifted_datum(folder: Path) -> dict[str, str]:
    return {"file": file_of(folder, box(177, -20, 183, -15), "EPSG:4171")}  # RGF93, WGS84 within centimetres


@pytest.mark.parametrize(
    "drawn",
    [
        lambda folder: {"bbox": [177, -20, -177, -15]},
        split_geojson,
        wide_geojson,
        half_and_half_geojson,
        pacific_mercator,
        pseudo_mercator_beyond_its_edge,
        shifted_datum,
    ],
)
def test_a_box_across_180_is_the_same_area_however_it_is_given(tmp_path: Path, drawn: Any) -> None:
    area = area_of(tmp_path, **drawn(tmp_path))
    assert len(area.geoms) == 2
    assert share_not_common(FIJI, area) < 1e-6
    assert area.bounds == pytest.approx((-180, -20, 180, -15), abs=1e-6)


@pytest.mark.parametrize(
    ("crs", "centre"),
    [(32660, (180, 40)), (32701, (-180, -17)), (3460, (179.9, -17)), (3832, (180, 60)), (3995, (180, 70))],
)
def test_a_sheet_across_180_is_cut_in_two_and_keeps_its_hole_and_its_island(
    tmp_path: Path, crs: int, centre: tuple[float, float]
) -> None:
    middle = on_sheet(Point(centre), crs)
    lake = middle.buffer(100e3, quad_segs=64).difference(middle.buffer(60e3, quad_segs=64))
    drawn = lake.union(middle.buffer(20e3, quad_segs=64))
    area = area_of(tmp_path, file=file_of(tmp_path, drawn, crs))
    west, east = area.intersection(box(-180, -90, 0, 90)), area.intersection(box(0, -90, 180, 90))
    assert west.bounds[0] == -180
    assert east.bounds[2] == 180
    assert west.bounds[2] < -170
    assert east.bounds[0] > 170
    assert len(area.geoms) == 4
    back = shapely.union_all([shapely.make_valid(on_sheet(shapely.segmentize(part, 0.01), crs)) for part in area.geoms])
    assert share_not_common(drawn, back) < 1e-4


def test_an_area_that_ends_at_180_has_nothing_beyond(tmp_path: Path) -> None:
    area = area_of(tmp_path, file=file_of(tmp_path, on_sheet(box(177, -20, 180, -15), 3832), 3832))
    assert area.geom_type == "Polygon"
    assert area.bounds == pytest.approx((177, -20, 180, -15))
    assert area_of(tmp_path, bbox=[180, -20, -170, -15]).equals(box(-180, -20, -170, -15))
    assert area_of(tmp_path, bbox=[170, -20, -180, -15]).equals(box(170, -20, 180, -15))


def test_the_whole_world_is_the_whole_world(tmp_path: Path) -> None:
    assert area_of(tmp_path, bbox=[-180, -90, 180, 90]).equals(box(-180, -90, 180, 90))
    name = file_of(tmp_path, on_sheet(box(-180, -60, 180, 80), 3857), 3857)
    assert share_not_common(box(-180, -60, 180, 80), area_of(tmp_path, file=name)) < 1e-6


def test_in_degrees_an_edge_goes_the_way_it_is_written(tmp_path: Path) -> None:
    wide = box(-170, 10, 170, 20)
    assert area_of(tmp_path, geojson=geojson(tmp_path, shapely.geometry.mapping(wide))).equals(wide)


# ---- around a pole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("crs", "pole"), [(3995, 90), (3031, -90), (3035, 90), ("ESRI:102020", -90)])
def test_an_area_around_a_pole_is_closed_over_it(tmp_path: Path, crs: Any, pole: int) -> None:
    centre = on_sheet(Point(0, pole), crs)
    cap = centre.buffer(2500e3, quad_segs=4)
    area = area_of(tmp_path, file=file_of(tmp_path, cap, crs))
    assert area.geom_type == "Polygon"
    assert len(area.interiors) == 0
    assert (area.bounds[0], area.bounds[2]) == (-180, 180)
    assert area.bounds[1 if pole < 0 else 3] == pole
    to_degrees = pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True)
    coast = np.column_stack(to_degrees.transform(*shapely.segmentize(cap, 10_000).exterior.xy))
    assert shapely.distance(area.boundary, shapely.points(coast)).max() < 1e-4
    truth_m2 = abs(GEOD.polygon_area_perimeter(*coast.T)[0])
    assert ground_m2(area) == pytest.approx(truth_m2, rel=1e-3)


def test_a_ring_of_land_around_a_pole_has_its_hole(tmp_path: Path) -> None:
    ring = Point(0, 0).buffer(2500e3, quad_segs=32).difference(Point(0, 0).buffer(1000e3, quad_segs=32))
    area = area_of(tmp_path, file=file_of(tmp_path, ring, 3031))
    assert not area.intersects(Point(0, -88))
    assert all(area.contains(Point(lon, -75)) for lon in range(-179, 180, 7))
    assert area.bounds[1] > -82


@given(turn=st.floats(0, 360), aside=st.floats(-300, 300))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_edge_through_a_pole_is_no_trouble(
    tmp_path_factory: pytest.TempPathFactory, turn: float, aside: float
) -> None:
    folder = tmp_path_factory.mktemp("pole")
    half = shapely.affinity.rotate(box(-2e6, aside, 2e6, 2e6 + aside), turn, origin=(0, 0))
    area = area_of(folder, file=file_of(folder, half, 3995))
    assert share_not_common(half, on_sheet(shapely.segmentize(area, 0.05), 3995).buffer(0)) < 1e-3


# ---- what is drawn ---------------------------------------------------------------------------------------------------


def test_neighbours_become_one_area_without_a_seam(tmp_path: Path) -> None:
    parts = [box(x, 5e6, x + 1e5, 5.1e6) for x in (3e5, 4e5, 5e5)]
    area = area_of(tmp_path, file=file_of(tmp_path, parts, 32660))
    assert area.geom_type == "Polygon"
    assert len(area.interiors) == 0


def test_heights_are_dropped_and_lines_passed_over(tmp_path: Path) -> None:
    high = shapely.force_3d(box(5e5, 5e6, 6e5, 5.1e6), 100.0)
    mixed = shapely.geometry.GeometryCollection([high, LineString([(0, 0), (1, 1)])])
    area = area_of(tmp_path, file=file_of(tmp_path, mixed, "EPSG:32633+5773"))
    assert share_not_common(area, area_of(tmp_path, file=file_of(tmp_path, high, 32633))) < 1e-9


def test_a_polygon_that_crosses_itself_is_repaired_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bow = Polygon([(4e5, 5e6), (5e5, 5.1e6), (5e5, 5e6), (4e5, 5.1e6)])
    with caplog.at_level(logging.WARNING, logger="difffusr.area"):
        area = area_of(tmp_path, file=file_of(tmp_path, bow, 32633))
    assert "a polygon crosses itself: repaired" in caplog.text
    assert len(area.geoms) == 2


def test_longitudes_from_paris_in_grads_are_understood(tmp_path: Path) -> None:
    lon, lat = pyproj.Transformer.from_crs(4807, 4326, always_xy=True).transform([0, 1], [54, 55])
    area = area_of(tmp_path, file=file_of(tmp_path, box(0, 54, 1, 55), 4807, "a.fgb"))
    assert area.bounds == pytest.approx((lon[0], lat[0], lon[1], lat[1]), abs=1e-4)
    assert area.bounds[0] == pytest.approx(2.337, abs=0.01)


@pytest.mark.parametrize("key", ["geojson", "file"])
def test_an_area_is_read_from_a_file_here_and_a_url_shown_without_its_secrets(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"area.{key}: https://host/a.gpkg: cannot be read") as caught:
        area_geometry(config_of(tmp_path, **{key: "https://host/a.gpkg?sig=SECRET"}))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("geometry", "crs", "expected"),
    [
        (LineString([(1, 2), (3, 4)]), 4326, "found LineString, expected a Polygon or MultiPolygon"),
        (
            box(3e5, 5e6, 4e5, 5.1e6),
            4326,
            "its coordinates do not fit its CRS (WGS 84): their bounds are 300000, 5e+06",
        ),
        (box(-1e9, 0, 1e9, 1e9), 3035, "its coordinates do not fit its CRS (ETRS89-extended / LAEA Europe)"),
        (box(0, 0, 1, 1), 4978, "its CRS (WGS 84) is neither longitude and latitude nor a map projection"),
    ],
)
def test_an_area_that_lies_nowhere_is_refused(tmp_path: Path, geometry: Any, crs: int, expected: str) -> None:
    assert refused(tmp_path, file=file_of(tmp_path, geometry, crs)).startswith(expected)


# ---- GeoJSON --------------------------------------------------------------------------------------------------------

SQUARE = {"type": "Polygon", "coordinates": [[[10, 50], [11, 50], [11, 51], [10, 51], [10, 50]]]}
UTM = {"type": "Polygon", "coordinates": [[[500000, 5500000], [600000, 5500000], [600000, 5600000], [500000, 5500000]]]}


@pytest.mark.parametrize("key", ["geojson", "file"])
@pytest.mark.parametrize(
    "content",
    [
        SQUARE,
        {"type": "Feature", "properties": {}, "geometry": SQUARE},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": None, "geometry": SQUARE}]},
        {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
        {"type": "GeometryCollection", "geometries": [SQUARE, {"type": "Point", "coordinates": [0, 0]}]},
        {**SQUARE, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}},
        {**SQUARE, "crs": {"type": "name", "properties": {"name": "EPSG:4326"}}},
    ],
)
def test_every_form_of_a_polygon_is_read(tmp_path: Path, content: Any, key: str) -> None:
    assert area_of(tmp_path, **{key: geojson(tmp_path, content)}).equals(box(10, 50, 11, 51))


@pytest.mark.parametrize("key", ["geojson", "file"])
def test_a_crs_member_is_honoured(tmp_path: Path, key: str) -> None:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    content = {"type": "FeatureCollection", "crs": crs, "features": [{"type": "Feature", "geometry": UTM}]}
    area = area_of(tmp_path, **{key: geojson(tmp_path, content)})
    assert area.bounds == pytest.approx((15.0, 49.644, 16.41, 50.55), abs=0.02)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not valid JSON"),
        ("[1]", "not valid GeoJSON"),
        ({"type": "FeatureCollection"}, "not valid GeoJSON"),
        ({"type": "FeatureCollection", "features": []}, "found nothing, expected a Polygon"),
        ({"type": "Point", "coordinates": [1, 2]}, "found Point, expected a Polygon"),
        ({"type": "Polygon", "coordinates": [[[1, 2]]]}, "not valid GeoJSON"),
        ({"type": "Polygon", "coordinates": 5}, "not valid GeoJSON"),
        ({"type": "Polygon", "coordinates": [[["a", 2], [1, 2], [3, 4], ["a", 2]]]}, "not valid GeoJSON"),
        ({"type": "Sphere", "coordinates": []}, "not valid GeoJSON"),
        ({"type": "Polygon", "coordinates": [[[1, 2], [1, 2], [1, 2], [1, 2]]]}, "found Polygon, expected a Polygon"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 0], [1e300, 1e300], [0, 0]]]}, "do not fit its CRS"),
        (UTM, "do not fit its CRS"),
        ({**UTM, "crs": {"type": "name", "properties": {"name": "EPSG:0"}}}, "unknown CRS 'EPSG:0'"),
        ({**UTM, "crs": {"type": "link", "properties": {"href": "x"}}}, "unknown CRS None"),
    ],
)
def test_geojson_that_is_no_area_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    assert expected in refused(tmp_path, geojson=geojson(tmp_path, content))


_COORDINATE = st.floats() | st.integers() | st.none() | st.text(max_size=3)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rings=st.lists(st.lists(st.lists(st.floats(-400, 400) | _COORDINATE, max_size=4), max_size=6), max_size=3),
    crs=st.sampled_from([None, "EPSG:4326", "EPSG:3857", "EPSG:3031", "EPSG:4807"]),
)
def test_whatever_stands_in_a_polygon_the_answer_is_an_area_or_one_line(
    tmp_path: Path, rings: list[Any], crs: str | None
) -> None:
    for ring in rings:
        ring.extend(ring[:1])
    content = {"type": "Polygon", "coordinates": rings, "crs": crs and {"properties": {"name": crs}}}
    file = geojson(tmp_path, content)
    try:
        area_of(tmp_path, geojson=file)
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert message.startswith("area.geojson: ")
    assert "\n" not in message


def test_a_missing_geojson_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path, geojson="nowhere.geojson").startswith("cannot be read: No such file")


def test_tiles_are_handed_on(tmp_path: Path) -> None:
    assert area_geometry(config_of(tmp_path, tiles=["t48que", "1WCR"])) == ["48QUE", "01WCR"]


def test_the_area_of_the_example_is_luxembourg() -> None:
    with resources.as_file(resources.files("difffusr.pipeline.config.examples") / "country_month.yaml") as file:
        area = area_geometry(load_config(file))
    assert box(5.5, 49.3, 6.7, 50.3).contains(area)


@pytest.mark.parametrize("module", ["area", "grid", "globe", "zones"])
def test_only_a_vector_file_needs_geopandas(module: str) -> None:
    assert not packages_with(f"difffusr.pipeline.geo.{module}") & {"geopandas", "pandas", "pyogrio", "pyarrow", "dask"}
