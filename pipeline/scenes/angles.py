"""What an item says of sun and view: mean angles, and where the granule's metadata are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from difffusr.pipeline.scenes.fields import number_in

#: Asset keys of a granule's metadata (MTD_TL.xml), in small letters with hyphens: Earth Search v1, Planetary Computer,
#: stactools; Earth Search v0.
_METADATA = ("granule-metadata", "metadata")


class MeanAngles(NamedTuple):
    """Mean angles over a tile, in degrees; azimuths clockwise from north, seen from the ground."""

    sun_zenith: float
    sun_azimuth: float
    view_zenith: float
    view_azimuth: float


def mean_angles(properties: Mapping[str, Any]) -> MeanAngles | None:
    """The angles by the view extension; None where one is missing or impossible."""
    elevation = number_in(properties.get("view:sun_elevation"), 0, 90)
    azimuth = number_in(properties.get("view:sun_azimuth"), -360, 720)
    incidence = number_in(properties.get("view:incidence_angle"), 0, 45)
    view = number_in(properties.get("view:azimuth"), -360, 720)
    if elevation is None or azimuth is None or incidence is None or view is None:
        return None
    return MeanAngles(90 - elevation, azimuth % 360, incidence, view % 360)


def granule_metadata(assets: Mapping[str, Any]) -> str | None:
    """The key of the asset with a granule's metadata, None for none."""
    by_name = {key.lower().replace("_", "-"): key for key in sorted(assets, reverse=True)}
    for name in _METADATA:
        asset = assets.get(by_name.get(name, ""))
        if isinstance(asset, dict) and isinstance(asset.get("href"), str) and asset["href"].strip():
            return by_name[name]
    return None
