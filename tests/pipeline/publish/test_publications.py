"""The history of a cube: every publication, listed by anybody in no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from earlier_history import make_earlier
from fresh_python import loaded_by
from plain_cubes import appended, revised
from small_cubes import EPSG, GROUP, SHARDS

from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.publish.documents import objects_of
from difffusr.pipeline.publish.door import rollback
from difffusr.pipeline.publish.publications import history

HEAVY = ("zarr", "numpy", "torch", "ray", "geopandas", "icechunk", "shapely", "pydantic")


def test_the_history_tells_every_publication(on_disk):
    storage, staging = on_disk
    assert history(staging) == []
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    revised(storage, staging, 1, 13, shards=SHARDS[:1])
    told = history(staging)
    assert [(r.number, r.kind, r.shards_written, r.current) for r in told] == [
        (3, "revision", 1, True),
        (2, "period", 4, False),
        (1, "period", 4, False),
    ]
    assert [dict(r.zones) for r in told] == [{EPSG: 1}, {EPSG: 0}, {EPSG: 0}]
    assert told[0].where == "revision 1"
    assert told[0].when >= told[1].when >= told[2].when


def test_every_document_of_a_publication_is_in_the_history(on_disk):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    kept = objects_of(staging, history(staging)[0])
    for path, data in kept.items():
        assert storage.read(path) == data, path
    pixels = {f"{EPSG}/{level}/{name}/c" for level in range(2) for name in ("reflectance", "quality", "source")}
    there = {path for path in storage.names("") if not any(path.startswith(f"{folder}/") for folder in pixels)}
    assert set(kept) == there
    assert {"zarr.json", f"{EPSG}/zarr.json", f"{GROUP}/zarr.json", f"{GROUP}/time/c/0", f"{GROUP}/x/c/0"} <= set(kept)


def _other(place: str, path: str, text: str | None) -> Callable[[dict[str, Any]], None]:
    """Puts another text in a document's place, or drops it."""

    def change(record: dict[str, Any]) -> None:
        del record[place][path]
        if text is not None:
            record[place][path] = text

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(documents={}),
        _other("documents", "zarr.json", None),
        _other("documents", "zarr.json", ""),
        _other("documents", "zarr.json", "[1]"),
        _other("documents", "zarr.json", '{"attributes": 7}'),
        _other("documents", f"{GROUP}/zarr.json", "{"),
        _other("documents", f"{GROUP}/quality/zarr.json", "{}"),
        _other("documents", f"{GROUP}/quality/zarr.json", "null"),
        _other("documents", f"{GROUP}/quality/zarr.json", "[" * 100_000),
        _other("steps_of_time", f"{GROUP}/time/c/0", "no base64"),
    ],
)
def test_documents_of_an_earlier_history_that_nobody_understands_are_said_and_not_put_before_readers(on_disk, change):
    storage, staging = on_disk
    appended(storage, staging, 1, 11)
    appended(storage, staging, 2, 12)
    make_earlier(storage, staging)
    record = json.loads(staging.read("history/000001.json"))
    change(record)
    staging.write("history/000001.json", json.dumps(record).encode())
    before = {path: storage.read(path) for path in storage.names("")}
    with pytest.raises(StoreError, match="history: the documents of publication 1 cannot be understood") as caught:
        rollback(storage, staging, 1)
    assert "\n" not in str(caught.value)
    assert {path: storage.read(path) for path in storage.names("")} == before
    assert [one.number for one in history(staging)] == [2, 1]


def test_to_list_a_history_takes_nothing_of_what_writes_a_cube(tmp_path):
    code = (
        "from difffusr.pipeline.publish.publications import history\n"
        "from difffusr.pipeline.storage.objects import Storage\n"
        f"assert history(Storage({str(tmp_path)!r})) == []"
    )
    assert loaded_by(code, HEAVY) == []
