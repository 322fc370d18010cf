"""Addresses in STAC documents: relative ones where cube and documents lie side by side, else absolute ones."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from difffusr.pipeline.config import ICECHUNK
from difffusr.pipeline.cube import BASE_LEVEL, Cube
from difffusr.pipeline.readers.stac.words import ZARR
from difffusr.pipeline.storage import Storage


@dataclass(frozen=True)
class Addresses:
    """Addresses of a cube in documents of a folder.

    Attributes:
        cube: the cube.
        folder: where the documents are written.
        absolute: whether they stay as they are wherever the documents are copied.
    """

    cube: Cube
    folder: Storage
    absolute: bool = False

    @cached_property
    def root(self) -> str:
        """Of the cube: relative where the documents lie beside it, or in a folder beside it."""
        place = _address(self.cube.storage)
        whole = self.absolute or self.is_icechunk
        return place if whole else _relative(place, _address(self.folder)) or place

    @property
    def is_icechunk(self) -> bool:
        """Whether the cube is a repository, which only Icechunk opens."""
        return self.cube.storage.url.startswith(ICECHUNK)

    def zarr(self, epsg: int) -> dict[str, Any]:
        """How a zone's finest level is opened: by the root, whose document shows all of it in one state.

        Returns:
            href, type and fields of the extensions zarr and xarray-assets.
        """
        return {
            **self.store(),
            **({} if self.is_icechunk else {"xarray:open_kwargs": self._kwargs(f"{epsg}/{BASE_LEVEL}")}),
            **self._options(),
        }

    def array(self, epsg: int, name: str) -> dict[str, Any]:
        """How an array of a zone's finest level is opened; it says nothing of others."""
        node = {"zarr:zarr_format": 3, "zarr:node_type": "array", "zarr:consolidated": False}
        return {"href": f"{self.root}/{epsg}/{BASE_LEVEL}/{name}", "type": ZARR, **node}

    def store(self) -> dict[str, Any]:
        """The cube's href, type, and fields of the extension zarr."""
        return {
            "href": self.root,
            "type": "application/vnd.zarr+icechunk" if self.is_icechunk else ZARR,
            "zarr:zarr_format": 3,
            "zarr:node_type": "group",
            "zarr:consolidated": not self.is_icechunk,
        }

    def _kwargs(self, group: str) -> dict[str, Any]:
        return {"group": group, "zarr_format": 3, "consolidated": True}

    def _options(self) -> dict[str, Any]:
        """Of a bucket that is open to everybody. Other options may be secret."""
        open_to_all = self.cube.storage.options.get("anon") is True
        return {"xarray:storage_options": {"anon": True}} if open_to_all else {}


def _address(storage: Storage) -> str:
    """A folder's URL, or its absolute path."""
    if storage.url.startswith(ICECHUNK):
        return storage.url  # no file system of fsspec's
    return storage.filesystem()[1] if storage.is_local else storage.url


def _relative(place: str, folder: str) -> str | None:
    """An address relative to a folder that lies in the folder around it, or below; None elsewhere, and where a link on
    the way would make it wrong."""
    ours, theirs = (urlsplit(text) if "://" in text else None for text in (place, folder))
    if (ours is None) != (theirs is None):
        return None
    if ours is not None and theirs is not None:
        if (ours.scheme, ours.netloc, ours.query) != (theirs.scheme, theirs.netloc, theirs.query):
            return None
        return _way(ours.path or "/", theirs.path or "/")
    way = _way(place, folder)
    return way if way is not None and way == _way(os.path.realpath(place), os.path.realpath(folder)) else None


def _way(place: str, folder: str) -> str | None:
    around = posixpath.dirname(place.rstrip("/"))
    if posixpath.commonpath([around, folder]) != around:
        return None
    way = posixpath.relpath(place, folder)
    return way if way.startswith(".") else f"./{way}"
