"""The history of a cube: every publication, listed by anybody in no time."""

from __future__ import annotations

from fresh_python import loaded_by
from plain_cubes import appended, revised
from small_cubes import EPSG, GROUP, SHARDS

from difffusr.pipeline.publish.documents import objects_of
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


def test_to_list_a_history_takes_nothing_of_what_writes_a_cube(tmp_path):
    code = (
        "from difffusr.pipeline.publish.publications import history\n"
        "from difffusr.pipeline.storage.objects import Storage\n"
        f"assert history(Storage({str(tmp_path)!r})) == []"
    )
    assert loaded_by(code, HEAVY) == []
