"""What reads a cube sees one state of it: what the root's document says, whatever lies in the groups themselves, where
a revision arrives piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from plain_cubes import appended, revised
from small_cubes import EPSG, GROUP, drafted, label
from zarr.storage import LocalStore

from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.reading import CubeReader
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.door import open_target
from difffusr.pipeline.readers.export import export_cogs, exports_of
from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.view.levels import map_cube
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]


def pixels(places: Places) -> Any:
    cube = Cube(places[0])
    return [np.asarray(cube.array(EPSG, name, level)).tolist() for name in ("quality", "source") for level in (0, 1)]


def window(places: Places) -> Any:
    draft = drafted(places[0], 1)
    return CubeReader(places[0], draft).read(EPSG, "source", draft.zones[EPSG].window).tolist()


def scenes(places: Places) -> Any:
    return Cube(places[0]).scenes


def the_next_draft(places: Places) -> Any:
    draft = drafted(places[0], 3)
    return draft.objects, draft.documents


def what_is_there(places: Places) -> Any:
    return open_target(*places, drafted(places[0], 1), label(1)).present()


def the_map(places: Places) -> Any:
    cube = map_cube(Cube(places[0]))
    zone = cube.zones[EPSG]
    return zone.extent, cube.scenes, [level.data["source"].values.tolist() for level in zone.levels]


def files(places: Places) -> Any:
    cube, folder = Cube(places[0]), Path(places[1].url, "cogs")
    written = export_cogs(cube, exports_of(cube, None), Storage(str(folder)), overwrite=True)
    return [Path(name).stat().st_size for name in written]


def the_report(places: Places) -> Any:
    report = collect_report(Cube(places[0]), places[1], None)
    return report.scenes, report.labels, [period.survey.scenes for period in report.periods]


TOOLS = (pixels, window, scenes, the_next_draft, what_is_there, the_map, files, the_report)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """January and February, January revised."""
    places = Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "cube.staging"))
    appended(*places, 1, 11)
    appended(*places, 2, 12)
    revised(*places, 1, 13)
    return places


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_a_tool_asks_for_no_document_but_the_root_s(places, tool: Callable[[Places], Any], monkeypatch):
    wanted = tool(places)
    asked: list[str] = []
    get, read = LocalStore.get, Storage.read

    async def counted(self: LocalStore, key: str, *args: Any, **more: Any) -> Any:
        asked.append(key)
        return await get(self, key, *args, **more)

    monkeypatch.setattr(LocalStore, "get", counted)
    monkeypatch.setattr(Storage, "read", lambda self, name: asked.append(name) or read(self, name))
    # As a publication leaves them that has not come to its end, and worse.
    for name in places[0].names(""):
        if name.endswith("/zarr.json"):
            places[0].write(name, b"of another state")
    assert tool(places) == wanted
    documents = [name for name in asked if name.endswith(("zarr.json", ".zgroup", ".zattrs", ".zmetadata"))]
    assert set(documents) == {"zarr.json"}
    assert len(documents) <= 2


def test_a_cube_that_was_opened_stays_as_it_was(places):
    cube = Cube(places[0])
    before = np.asarray(cube.array(EPSG, "source")).tolist(), cube.scenes, cube.periods(EPSG)
    appended(*places, 3, 14)
    assert (np.asarray(cube.array(EPSG, "source")).tolist(), cube.scenes, cube.periods(EPSG)) == before
    assert len(Cube(places[0]).periods(EPSG)) == 3


def test_a_root_without_the_metadata_of_what_is_below_is_not_made_up_for(places):
    root = json.loads(places[0].read("zarr.json"))
    del root["consolidated_metadata"]
    places[0].write("zarr.json", json.dumps(root).encode())
    for tool in (pixels, the_map):
        with pytest.raises(StoreError, match="lacks the metadata of groups and arrays; `difffusr rollback --to`"):
            tool(places)


def test_the_readme_s_warning_is_true(places):
    """A level that is opened by its own path shows what was written last, before readers are to see it."""
    document = json.loads(places[0].read(f"{GROUP}/time/zarr.json"))
    document["shape"] = [3]
    places[0].write(f"{GROUP}/time/zarr.json", json.dumps(document).encode())
    assert zarr.open_array(places[0].url, path=f"{GROUP}/time", mode="r").shape == (3,)
    assert zarr.open_group(places[0].url, mode="r")[f"{GROUP}/time"].shape == (2,)
