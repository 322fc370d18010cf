"""What a cube's documents say of its arrays. Cubes that exist are continued: shapes, types, fill values, codecs and
keys may never change, attributes only where older ones are still understood.

`drafted.json` holds every document of a small cube with a standard deviation, in its fourth revision, without what
PROJ and consolidation put into them; a document a line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import CRS
from small_cubes import EPSG, GRID, WINDOW, month
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from difffusr.pipeline.cube.draft import CubeDraft
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.layout import Zone
from difffusr.pipeline.cube.variables import COORDINATES, variables
from difffusr.pipeline.storage.objects import Storage

EXPECTED = Path(__file__).with_name("drafted.json")


def drafted(folder: Path, samples: int, revision: int | None, composite: str = "none") -> CubeDraft:
    """A cube of one month."""
    revise = None if revision is None else {EPSG: revision}
    scenes = [{"id": "a", "tile": "48PXS"}, {"id": "b"}]
    storage = Storage(str(folder / "cube.zarr"))
    return draft_cube(
        storage, GRID, {EPSG: WINDOW}, month(1), scenes, {"made": "by a test"}, samples,
        composite=composite, revise=revise,
    )  # fmt: skip


def told(draft: CubeDraft) -> dict[str, Any]:
    """Every document of a draft, by path."""
    of_proj = {*CRS.from_epsg(EPSG).to_cf(), "crs_wkt", "spatial_ref"}
    out = {}
    for path in sorted(path for path in draft.objects if path.endswith("zarr.json")):
        document = json.loads(draft.objects[path])
        document.pop("consolidated_metadata", None)
        if "spatial_ref/" in path:
            document["attributes"] = {k: v for k, v in document["attributes"].items() if k not in of_proj}
        out[path] = document
    return out


def values(draft: CubeDraft, path: str) -> np.ndarray:
    """A coordinate as a reader has it."""
    buffer = default_buffer_prototype().buffer.from_bytes
    store = MemoryStore({name: buffer(data) for name, data in draft.objects.items()})
    return np.asarray(draft.array(store, path)[...])


def test_every_document_is_what_it_always_was(tmp_path):
    lines = [f"{json.dumps(path)}: {json.dumps(document)}" for path, document in told(drafted(tmp_path, 4, 3)).items()]
    assert lines == [line.strip().rstrip(",") for line in EXPECTED.read_text().splitlines()[1:-1]]


def test_without_samples_there_is_no_standard_deviation_and_nothing_else_differs(tmp_path):
    plain, full = told(drafted(tmp_path, 0, 3)), told(drafted(tmp_path, 4, 3))
    assert set(full) - set(plain) == {f"{EPSG}/{level}/reflectance_std/zarr.json" for level in (0, 1)}
    for level in (0, 1):
        path = f"{EPSG}/{level}/reflectance/zarr.json"
        full[path]["attributes"]["ancillary_variables"] = "quality source"
    assert full[f"{EPSG}/0/zarr.json"]["attributes"].pop("difffusr:uncertainty_samples") == 4
    assert {path: full[path] for path in plain} == plain


@pytest.mark.parametrize("samples", [0, 4])
@pytest.mark.parametrize("composite", ["medoid", "geomedian"])
def test_a_composite_has_looks_and_nothing_else_differs(tmp_path, samples, composite):
    plain, full = told(drafted(tmp_path, samples, 3)), told(drafted(tmp_path, samples, 3, composite))
    assert set(full) - set(plain) == {f"{EPSG}/{level}/looks/zarr.json" for level in (0, 1)}
    for level in (0, 1):
        listed = full[f"{EPSG}/{level}/reflectance/zarr.json"]["attributes"]
        assert "looks" in listed["ancillary_variables"].split()
        listed["ancillary_variables"] = listed["ancillary_variables"].removesuffix(" looks")
        looks, quality = (full[f"{EPSG}/{level}/{name}/zarr.json"] for name in ("looks", "quality"))
        assert looks["attributes"]["standard_name"] == "number_of_observations"
        assert looks["attributes"]["units"] == "1"
        assert composite in looks["attributes"]["long_name"]
        assert looks["attributes"].get("cell_methods") == ("area: mode" if level else None)
        assert {k: v for k, v in looks.items() if k != "attributes"} == {
            k: v for k, v in quality.items() if k != "attributes"
        }
    assert full[f"{EPSG}/0/zarr.json"]["attributes"].pop("difffusr:composite") == composite
    assert {path: full[path] for path in plain} == plain


def test_the_fourth_revision_has_other_keys_than_the_first_and_nothing_else_differs(tmp_path):
    first, fourth = told(drafted(tmp_path, 0, None)), told(drafted(tmp_path, 0, 3))
    keys = {"reflectance": (("default", "/"), ("v2", ".")), "time": (("default", "/"), ("default", "."))}
    for name, pair in keys.items():
        path = f"{EPSG}/1/{name}/zarr.json"
        written = [documents[path]["chunk_key_encoding"] for documents in (first, fourth)]
        assert [(key["name"], key["configuration"]["separator"]) for key in written] == list(pair)
    for documents in (first, fourth):
        documents[f"{EPSG}/0/zarr.json"]["attributes"].pop("difffusr:lineage")
        for document in documents.values():
            document.pop("chunk_key_encoding", None)
    assert first == fourth


@pytest.mark.parametrize("level", [0, 1])
def test_coordinates_say_when_and_where_pixels_are(tmp_path, level):
    draft, (left, _, _, top), size = drafted(tmp_path, 0, None), WINDOW.bounds_m(EPSG), 2.5 * 2**level
    path = f"{EPSG}/{level}"
    assert values(draft, f"{path}/time").tolist() == [19358]
    assert values(draft, f"{path}/time_bnds").tolist() == [[19358, 19389]]
    across = np.arange(WINDOW.width >> level) + 0.5
    assert np.array_equal(values(draft, f"{path}/x"), left + size * across)
    assert np.array_equal(values(draft, f"{path}/y"), top - size * across)
    assert values(draft, f"{path}/band").tolist()[:3] == ["B01", "B02", "B03"]
    assert values(draft, f"{path}/wavelength")[1] == 492.4
    attributes = json.loads(draft.objects[f"{path}/spatial_ref/zarr.json"])["attributes"]
    assert CRS.from_wkt(attributes["crs_wkt"]) == CRS.from_epsg(EPSG)
    assert "GeoTransform" not in attributes


@pytest.mark.parametrize("composite", ["none", "geomedian"])
@pytest.mark.parametrize("samples", [0, 4])
def test_the_variables_with_shards_are_those_of_the_table(samples, composite):
    zone = Zone(EPSG, WINDOW, (month(1),), 0, uncertainty_samples=samples, composite=composite)
    names = [variable.name for variable in variables(samples, composite)]
    assert sorted(zone.variables) == sorted(names)
    assert ("looks" in names) == (composite != "none")
    assert not set(names) & {coordinate.name for coordinate in COORDINATES}
