"""A scene's factors of view and sun, from the best that is known of its angles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.bands import BANDS
from difffusr.kernels.brdf import c_factor, nominal_sun_zenith
from difffusr.pipeline.ground.errors import CatalogError, ReadError
from difffusr.pipeline.ground.unsigned import opens_unsigned
from difffusr.pipeline.ground.urls import bare_href, bucket_of
from difffusr.pipeline.scenes.documents import fetched
from difffusr.pipeline.scenes.granule import Granule, read_granule
from difffusr.pipeline.scenes.item import Scene
from difffusr.pipeline.scenes.providers import provider_of, readable
from difffusr.pipeline.scenes.requests import DOCUMENT_S, PatientIO


@dataclass(frozen=True, eq=False)
class Nadir:
    """What brings a scene's reflectance to nadir.

    Attributes:
        left, top, step_m: of the first node, and from node to node, in metres of the scene's CRS.
        factor: (12, n, n) float32 in BANDS order, what to multiply by.
        source: where the angles are from: the granule's metadata, the item's means, or nowhere (factor 1).
        why: why they are not the granule's, "" if they are.
    """

    left: float
    top: float
    step_m: float
    factor: NDArray[np.float32]
    source: Literal["granule", "item", "nothing"]
    why: str


def nadir_of(scene: Scene, sun: Literal["scene", "noon"]) -> Nadir:
    """The factors of a scene.

    Args:
        sun: whether the sun stays where it was, or is put where it stands at the latitude's nominal hour.
    """
    latitude = (scene.footprint.bounds[1] + scene.footprint.bounds[3]) / 2
    target = float(nominal_sun_zenith(latitude)) if sun == "noon" else None
    why = "its item names no metadata of the granule"
    if scene.granule is not None:
        try:
            granule = granule_of(scene, scene.granule)
            factor = np.stack([granule.factors(band, target) for band in BANDS]).astype(np.float32)
            return Nadir(granule.left, granule.top, granule.step_m, factor, "granule", "")
        except (CatalogError, ReadError) as error:
            why = str(error)
    if scene.angles is None:
        return Nadir(0.0, 0.0, 1.0, np.ones((len(BANDS), 1, 1), np.float32), "nothing", why)
    sun_zenith, sun_azimuth, zenith, azimuth = scene.angles
    each = [c_factor(band, sun_zenith, zenith, sun_azimuth - azimuth, target) for band in BANDS]
    return Nadir(0.0, 0.0, 1.0, np.array(each, np.float32).reshape(-1, 1, 1), "item", why)


def granule_of(scene: Scene, place: str) -> Granule:
    """The angles in the metadata at an address.

    Raises:
        CatalogError: it cannot be read, is no such file, or is of another tile.
        ReadError: its provider gives no token.
    """
    named = f"{scene.id}: {bare_href(place)}"
    granule = read_granule(granule_document(place, named), named)
    if granule.epsg != scene.epsg:
        raise CatalogError(f"{named}: is of a tile in EPSG:{granule.epsg}, expected EPSG:{scene.epsg}")
    return granule


def granule_document(place: str, named: str) -> bytes:
    """The metadata at an address. Raises as `granule_of`, with errors that begin with `named`."""
    provider = provider_of(place)
    options: dict[str, Any] = {}
    if place.startswith("s3://"):
        options["anon"] = provider.public or opens_unsigned(bucket_of(place))
        options["requester_pays"] = provider.requester_pays
        if provider.endpoint:
            options["endpoint_url"] = f"https://{provider.endpoint}"
    href = readable(place) if place.startswith(("http://", "https://")) else place
    return fetched(PatientIO(DOCUMENT_S), href, named, options)
