"""The Zarr conventions of a zone's groups and arrays: `proj:`, `spatial:` and `multiscales`."""

from __future__ import annotations

from typing import Any

from difffusr.pipeline.cube.layout import Zone

_CONVENTIONS: list[dict[str, str]] = [
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj:",
        "schema_url": "https://raw.githubusercontent.com/zarr-experimental/geo-proj/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-experimental/geo-proj/blob/v1/README.md",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
    },
    {
        "uuid": "d35379db-88df-4056-af3a-620245f8e347",
        "name": "multiscales",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    },
]


def spatial(zone: Zone, level: int) -> dict[str, Any]:
    """Attributes with the place of a level."""
    left, _, _, top = zone.lattice.bounds(zone.window)
    height, width = zone.level_shape(level)
    gsd, crs = zone.pixel(level), zone.lattice.crs
    return {
        "zarr_conventions": _CONVENTIONS[:2],
        **({"proj:code": crs} if crs.startswith(("EPSG:", "ESRI:")) else {"proj:wkt2": crs}),
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [left, top - height * gsd, left + width * gsd, top],
        "spatial:transform": [gsd, 0.0, left, 0.0, -gsd, top],
        "spatial:shape": [height, width],
        "spatial:registration": "pixel",
    }


def multiscales(zone: Zone) -> dict[str, Any]:
    """Attributes of a zone's group: its place and its levels."""
    levels = [spatial(zone, level) for level in zone.levels]
    layout = [
        {
            "asset": str(level),
            **({"derived_from": str(level - 1)} if level else {}),
            # A scale would need a value for every axis, and arrays have three or four: shape and transform are enough.
            "transform": {},
            **{key: place[key] for key in ("spatial:shape", "spatial:transform")},
        }
        for level, place in enumerate(levels)
    ]
    return {
        **levels[0],
        "zarr_conventions": _CONVENTIONS,
        "multiscales": {"layout": layout, "resampling_method": "average"},
    }
