"""The history of a cube: documents that anybody lists in no time."""

from __future__ import annotations

from fresh_python import loaded_by

HEAVY = ("zarr", "numpy", "torch", "ray", "geopandas", "icechunk", "shapely", "pydantic")


def test_to_list_a_history_takes_nothing_of_what_writes_a_cube(tmp_path):
    code = (
        "from difffusr.pipeline.publish.publications import history\n"
        "from difffusr.pipeline.storage.objects import Storage\n"
        f"assert history(Storage({str(tmp_path)!r})) == []"
    )
    assert loaded_by(code, HEAVY) == []
