"""Cubes and histories as earlier versions have left them: every record holds all documents, the root all scenes, and
time is a chunk a step."""

from __future__ import annotations

import base64
import json
from typing import Any

from small_cubes import EPSG

from difffusr.pipeline.cube.coordinates import _objects, _stored
from difffusr.pipeline.cube.documents import is_document, texts_of
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.publish.documents import documents_of, times_of
from difffusr.pipeline.publish.publications import records
from difffusr.pipeline.storage.objects import Storage


def make_earlier(storage: Storage, staging: Storage) -> None:
    """Turn a cube with its history into one of an earlier version."""
    scenes = {str(number): facts for number, facts in Cube(storage).scenes.items()}
    for record in list(records(staging)):
        documents = {path: old for path, old in documents_of(staging, record).items() if not path.startswith("scenes")}
        attributes = documents[""]["attributes"]
        shown = attributes.pop("difffusr:scene_count")
        del attributes["difffusr:scene_pages"]
        attributes["difffusr:scenes"] = {number: facts for number, facts in scenes.items() if int(number) <= shown}
        times = {}
        for path, data in times_of(staging, record, documents).items():
            node = "/".join(path.split("/")[:3])
            times |= _by_step(node, documents[node], data)
        texts = {path: json.dumps(json.loads(data), indent=2) for path, data in texts_of(documents).items()}
        old = json.loads(record.to_json())
        del old["parts"], old["revisions"]
        old["documents"] = texts
        old["steps_of_time"] = {path: base64.b64encode(data).decode() for path, data in times.items()}
        staging.write(f"history/{record.number:06d}.json", json.dumps(old, indent=1, sort_keys=True).encode())
        for name in storage.names(""):
            if is_document(name) or name.split("/")[2:3] in (["time"], ["time_bnds"]) or name.startswith("scenes/"):
                storage.delete(name)
        for path, data in {**times, **{path: text.encode() for path, text in texts.items()}}.items():
            storage.write(path, data)
    for name in staging.names("documents"):
        staging.delete(f"documents/{name}")
    assert f"{EPSG}/0/time/zarr.json" in storage.names("")


def _by_step(path: str, document: dict[str, Any], data: bytes) -> dict[str, bytes]:
    """A coordinate along time in a chunk a step; its document is changed to say so."""
    values = _stored(document, data)
    document["chunk_grid"]["configuration"]["chunk_shape"][0] = 1
    return _objects(path, document, values)
