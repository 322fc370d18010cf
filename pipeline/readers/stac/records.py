"""Writes a published cube as STAC: a collection, an item and a picture for each zone and period, all items as one
stac-geoparquet, and an item for the model that made them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.readers.stac.collection import collection_of, groups_of
from difffusr.pipeline.readers.stac.items import items_of
from difffusr.pipeline.readers.stac.model import model_of
from difffusr.pipeline.readers.stac.places import Addresses
from difffusr.pipeline.readers.stac.words import link_to_model
from difffusr.pipeline.storage import Storage

_ID = re.compile(r"[A-Za-z0-9._-]+")


def write_records(cube: Cube, folder: Storage, name: str | None = None, *, absolute: bool = False) -> list[str]:
    """Write `collection.json`, `<item>.json` and `<item>.png` for each zone and period, `items.parquet`, and
    `model.json` if the cube names its weights; returns their URLs.

    The same cube gives the same bytes. Existing documents are replaced.

    Args:
        folder: to write to; links between the documents are relative, and so are addresses of a cube beside which the
            folder lies.
        name: the collection's id; the last part of the cube's URL by default.
        absolute: write the cube's absolute address in any case.

    Raises:
        ConfigError: the name is not a valid id.
        StoreError: the cube cannot be read, or the folder cannot be written to.
    """
    name = name or name_of(cube)
    if not _ID.fullmatch(name):
        raise ConfigError(f"--id: found {name!r}, expected letters, digits, '.', '_' and '-'")
    places = Addresses(cube, folder, absolute)
    items, written = [], []
    for item, picture in items_of(cube, name, places):
        items.append(item)
        written.append(f"{item['id']}.png")
        folder.write(written[-1], picture)
    documents = {
        **{f"{item['id']}.json": as_json(item) for item in items},
        "items.parquet": as_parquet(items),
        **({"model.json": as_json(model_of(cube, name, items))} if link_to_model(cube) else {}),
        "collection.json": as_json(_collection(cube, name, items, places)),  # last, as it links to all others
    }
    for file, data in documents.items():
        folder.write(file, data)
    return [f"{folder.url}/{file}" for file in [*written, *documents]]


def name_of(cube: Cube) -> str:
    """The last part of a cube's URL."""
    return re.sub(r"\.zarr$", "", cube.storage.url.rsplit("/", 1)[-1])


def _collection(cube: Cube, name: str, items: Sequence[dict[str, Any]], places: Addresses) -> dict[str, Any]:
    picture = {**items[-1]["assets"]["thumbnail"], "title": f"true colour, {items[-1]['properties']['title']}"}
    assets = {
        "zarr": {**places.store(), "title": "the whole cube", "roles": ["data"]},
        "thumbnail": picture,
    }
    return collection_of(cube, name, items, assets, groups_of(cube), link_to_model(cube))


def as_json(document: dict[str, Any]) -> bytes:
    """A document as it is written."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def as_parquet(items: Sequence[dict[str, Any]]) -> bytes:
    """Items as stac-geoparquet."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet  # imports geopandas

    with tempfile.TemporaryDirectory(prefix="difffusr-stac-") as place:
        file = Path(place) / "items.parquet"
        to_parquet(parse_stac_items_to_arrow(items), file)
        return file.read_bytes()
