"""Scenes of a cube: one number each, and a page for every period that no other publication touches."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import zarr
from small_cubes import EPSG, GRID, WINDOW

from difffusr.pipeline.cube.documents import metadata
from difffusr.pipeline.cube.drafting import draft_cube
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.cube.store import open_store
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.door import open_target, revisions_to_come, rollback
from difffusr.pipeline.storage.objects import Storage

Places = tuple[Storage, Storage]


@pytest.fixture(params=["", "icechunk+"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """A plain store and an Icechunk repository."""
    return Storage(f"{request.param}{tmp_path}/cube"), Storage(f"{tmp_path}/staging")


def published(places: Places, first: str, last: str, *ids: str, zones: tuple[int, ...] = (EPSG,), **more: Any) -> None:
    """A period without pixels, of these scenes."""
    days = date.fromisoformat(first), date.fromisoformat(last)
    facts = [{"id": name, **more} for name in ids]
    draft = draft_cube(places[0], GRID, dict.fromkeys(zones, WINDOW), days, facts, {})
    if draft.zones[zones[0]].seen:
        revise = {epsg: revisions_to_come(*places, draft, epsg)[0] for epsg in zones}
        draft = draft_cube(places[0], GRID, dict.fromkeys(zones, WINDOW), days, facts, {}, revise=revise)
    target = open_target(*places, draft, first)
    target.begin()
    target.publish(shards_written=0, keep=1)


def numbered(place: Storage) -> dict[int, str]:
    return {number: facts["id"] for number, facts in Cube(place).scenes.items()}


def pages(place: Storage) -> dict[str, str]:
    root = metadata(place, "zarr.json")
    assert root is not None
    found: dict[str, str] = root["attributes"]["difffusr:scene_pages"]
    return found


def test_a_scene_of_two_periods_that_overlap_has_one_number(places):
    published(places, "2023-01-01", "2023-01-31", "a", "b")
    published(places, "2023-02-01", "2023-02-28", "c")
    published(places, "2023-01-15", "2023-02-15", "b", "c", "d")
    assert numbered(places[0]) == {1: "a", 2: "b", 3: "c", 4: "d"}
    assert sorted(pages(places[0])) == [
        "2023-01-01/2023-01-31", "2023-01-15/2023-02-15", "2023-02-01/2023-02-28",
    ]  # fmt: skip


def test_a_month_leaves_the_pages_of_others_as_they_are(places):
    published(places, "2023-01-01", "2023-01-31", "a")
    before = pages(places[0])
    published(places, "2023-02-01", "2023-02-28", "b")
    after = pages(places[0])
    assert after.items() > before.items()


def test_runs_of_other_zones_share_a_period_s_page(places):
    published(places, "2023-01-01", "2023-01-31", "a")
    published(places, "2023-01-01", "2023-01-31", "b", zones=(EPSG + 1,))
    assert numbered(places[0]) == {1: "a", 2: "b"}
    assert len(pages(places[0])) == 1


def test_what_is_said_of_a_scene_may_change_and_a_rollback_changes_it_back(places):
    published(places, "2023-01-01", "2023-01-31", "a", tile="48PXS")
    published(places, "2023-01-01", "2023-01-31", "a", "b", tile="48PXT")
    assert [facts["tile"] for facts in Cube(places[0]).scenes.values()] == ["48PXT", "48PXT"]
    rollback(*places)
    assert [(number, facts["tile"]) for number, facts in Cube(places[0]).scenes.items()] == [(1, "48PXS")]


def test_a_repository_keeps_old_pages_in_old_snapshots_alone(tmp_path):
    places = Storage(f"icechunk+{tmp_path}/cube"), Storage(f"{tmp_path}/staging")
    sizes = []
    for n in range(4):
        published(places, "2023-01-01", "2023-01-31", "a", tile=f"48PX{n}")
        published(places, f"2023-0{n + 2}-01", f"2023-0{n + 2}-28", "b")
        group = zarr.open_group(open_store(places[0]), mode="r")["scenes"]
        assert {f"scenes/{name}" for name in group.array_keys()} == set(pages(places[0]).values())
        sizes.append(len(pages(places[0])))
    assert sizes == [2, 3, 4, 5]
    rollback(*places, to=2)
    assert len(Cube(places[0]).scenes) == 2


def test_the_root_does_not_grow_with_scenes(tmp_path):
    sizes = []
    for count in (1, 100):
        places = Storage(f"{tmp_path}/{count}/cube"), Storage(f"{tmp_path}/{count}/staging")
        published(places, "2023-01-01", "2023-01-31", *(f"S2A_{n}" for n in range(count)))
        sizes.append(Path(places[0].url, "zarr.json").stat().st_size)
        assert len(Cube(places[0]).scenes) == count
    assert abs(sizes[1] - sizes[0]) < 5


def test_anybody_reads_them_with_zarr_and_opens_the_tree(places):
    published(places, "2023-01-01", "2023-01-31", "a")
    published(places, "2023-02-01", "2023-02-28", "b")
    if places[0].url.startswith("icechunk"):
        pytest.skip("opened through a session")
    root = zarr.open_group(places[0].url, mode="r")
    found = {}
    for page in root.attrs["difffusr:scene_pages"].values():
        found |= json.loads(str(root[page][()]))
    assert {number: facts["id"] for number, facts in found.items()} == {"1": "a", "2": "b"}
    tree = xr.open_datatree(places[0].url, engine="zarr")
    assert set(tree.children) == {str(EPSG), "scenes"}


def test_the_scenes_of_an_earlier_version_go_to_a_page_of_their_own(tmp_path):
    places = Storage(f"{tmp_path}/cube"), Storage(f"{tmp_path}/staging")
    published(places, "2023-01-01", "2023-01-31", "a", "b")
    file = Path(places[0].url, "zarr.json")
    root = json.loads(file.read_text())
    root["attributes"]["difffusr:scenes"] = {"1": {"id": "a"}, "7": {"id": "b"}}
    del root["attributes"]["difffusr:scene_pages"], root["attributes"]["difffusr:scene_count"]
    file.write_text(json.dumps(root))
    assert numbered(places[0]) == {1: "a", 7: "b"}
    published(places, "2023-02-01", "2023-02-28", "b", "c")
    assert numbered(places[0]) == {1: "a", 7: "b", 8: "c"}
    assert sorted(pages(places[0])) == ["2023-02-01/2023-02-28", "earlier"]
    published(places, "2023-03-01", "2023-03-31", "a", "d")
    assert numbered(places[0]) == {1: "a", 7: "b", 8: "c", 9: "d"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"a": {"id": "b"}}', '{"1": {}}', '{"1": 3}', '{"-1": {"id": "a"}}', '{"1": {"id": 5}}'],
)
def test_a_page_that_is_damaged_is_one_line(tmp_path, text):
    places = Storage(f"{tmp_path}/cube"), Storage(f"{tmp_path}/staging")
    published(places, "2023-01-01", "2023-01-31", "a")
    page = next(iter(pages(places[0]).values()))
    zarr.open_array(places[0].url, path=page, mode="r+")[...] = text
    for read in (lambda: Cube(places[0]).scenes, lambda: published(places, "2023-01-01", "2023-01-31", "b")):
        with pytest.raises(StoreError, match=r"rollback --to") as caught:
            read()
        assert str(caught.value).startswith(f"{places[0].url}/{page}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("difffusr:scene_pages", []),
        ("difffusr:scene_pages", {"2023": "scenes/" + "a" * 64}),
        ("difffusr:scene_pages", {"2023-02-01/2023-01-01": "scenes/" + "a" * 64}),
        ("difffusr:scene_pages", {"2023-01-01/2023-02-01": "../../secret"}),
        ("difffusr:scene_pages", {"2023-01-01/2023-02-01": 7}),
        ("difffusr:scene_count", -1),
        ("difffusr:scene_count", "many"),
    ],
)
def test_what_a_root_says_of_pages_is_checked(tmp_path, name, value):
    places = Storage(f"{tmp_path}/cube"), Storage(f"{tmp_path}/staging")
    published(places, "2023-01-01", "2023-01-31", "a")
    file = Path(places[0].url, "zarr.json")
    root = json.loads(file.read_text())
    root["attributes"][name] = value
    file.write_text(json.dumps(root))
    with pytest.raises(StoreError, match=r"zarr\.json: cannot be understood"):
        Cube(places[0])
