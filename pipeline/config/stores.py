"""The sections of a run's configuration that say where cubes are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, WithJsonSchema, model_validator

from difffusr.pipeline.config import patterns
from difffusr.pipeline.config.section import Section, rule_error
from difffusr.pipeline.config.values import ICECHUNK, Boolean, Integer, Number, StorageUrl, Text
from difffusr.pipeline.ground.urls import shown_url


def staging_beside(url: str) -> str:
    """The default of `store.staging` for a cube's URL."""
    place = url.removeprefix(ICECHUNK).rstrip("/")
    return place.removesuffix(".zarr").removesuffix(".icechunk") + ".staging"


class StoreSection(Section):
    """Where the cube and the staged chips are kept."""

    url: StorageUrl = Field(description="a path or URL such as s3://bucket/cube.zarr")
    staging: Annotated[StorageUrl, WithJsonSchema({"anyOf": [patterns.STORAGE_URL, {"type": "null"}]})] = Field(
        default="", description="a path or URL outside store.url, or null for one beside it"
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="a mapping of fsspec options (keys are text)"
    )
    keep_chips: Boolean = Field(
        default=False, description="true or false (whether staged chips stay once their shards are written)"
    )
    keep_revisions: Integer = Field(
        default=1, ge=1, le=3, description="an integer from 1 to 3 (earlier revisions kept for readers and rollback)"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_staging(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("url"), str) and data.get("staging") is None:
            return {**data, "staging": staging_beside(data["url"])}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.staging.startswith(ICECHUNK):
            raise rule_error(
                "staging", shown_url(self.staging), "a plain path or URL: staged chips are objects, not arrays"
            )
        one, other = self.url.removeprefix(ICECHUNK) + "/", self.staging + "/"
        if one.startswith(other) or other.startswith(one):
            raise rule_error("staging", shown_url(self.staging), f"a place outside store.url = {shown_url(self.url)}")
        return self


class DerivedSection(Section):
    """A cube of one CRS that is made of the run's cube after each publication."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$",
        description="letters, digits, '.', '_' and '-', beginning with a letter or digit",
    )
    url: StorageUrl = Field(description="a path or URL such as s3://bucket/europe.zarr")
    staging: StorageUrl | None = Field(default=None, description="a path or URL outside the URL, or null")
    crs: Text = Field(description="a CRS such as EPSG:3035")
    resolution: Number | None = Field(
        default=None, gt=0, description="the side of a pixel in the CRS's units, or null for about 2.5 m"
    )
    shard_px: Integer = Field(default=2048, gt=0, description="a positive multiple of chunk_px (pixels)")
    chunk_px: Integer = Field(default=256, gt=0, description="a positive integer (pixels)")
    keep_revisions: Integer = Field(default=1, ge=1, le=3, description="an integer from 1 to 3")
