"""Reflectance at nadir: how much brighter or darker ground looks from the side (BRDF), as a factor for each band.

Ross-Thick and Li-Sparse-Reciprocal kernels (Lucht, Schaaf and Strahler 2000, with h/b = 2 and b/r = 1), weighted by the
global coefficients of Roy et al. (2016, for the bands that Landsat has too; 2017, red edge of Sentinel-2). One set of
coefficients for all ground is enough: within the 20° of Sentinel-2's view the shape hardly depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Coefficients(NamedTuple):
    """Weights of the isotropic, volumetric and geometric parts, in reflectance."""

    isotropic: float
    volumetric: float
    geometric: float


#: By band. B01, B8A and B09 have none of their own in the papers: B01 takes those of blue, B8A and B09 those of the
#: near infrared.
COEFFICIENTS: Final[Mapping[str, Coefficients]] = {
    "B01": Coefficients(0.0774, 0.0372, 0.0079),
    "B02": Coefficients(0.0774, 0.0372, 0.0079),
    "B03": Coefficients(0.1306, 0.0580, 0.0178),
    "B04": Coefficients(0.1690, 0.0574, 0.0227),
    "B05": Coefficients(0.2085, 0.0845, 0.0256),
    "B06": Coefficients(0.2316, 0.1003, 0.0273),
    "B07": Coefficients(0.2599, 0.1197, 0.0294),
    "B08": Coefficients(0.3093, 0.1535, 0.0330),
    "B8A": Coefficients(0.3093, 0.1535, 0.0330),
    "B09": Coefficients(0.3093, 0.1535, 0.0330),
    "B11": Coefficients(0.3430, 0.1154, 0.0453),
    "B12": Coefficients(0.2658, 0.0639, 0.0387),
}

#: Height of a crown's centre over its vertical radius, and its vertical over its horizontal radius.
_H_B, _B_R = 2.0, 1.0

#: Sun zenith in degrees at the latitude's nominal hour, by powers of the latitude in degrees (HLS user guide).
_NOMINAL = (31.0076, -0.1272, 0.01187, 2.40e-05, -9.48e-07, -1.95e-09, 6.15e-11)


def ross_thick(sun_zenith: ArrayLike, view_zenith: ArrayLike, azimuth: ArrayLike) -> NDArray[np.float64]:
    """The volumetric kernel of a dense canopy.

    Args:
        sun_zenith, view_zenith: degrees, any shapes that broadcast.
        azimuth: degrees from the sun's to the view's azimuth, both seen from the ground; 0 is backscatter.
    """
    sun, view, phi = (np.radians(np.asarray(angle, np.float64)) for angle in (sun_zenith, view_zenith, azimuth))
    cosine = _cos_phase(sun, view, phi)
    phase = np.arccos(cosine)
    kernel: NDArray[np.float64] = ((np.pi / 2 - phase) * cosine + np.sin(phase)) / (np.cos(sun) + np.cos(view))
    return kernel - np.pi / 4


def li_sparse_reciprocal(sun_zenith: ArrayLike, view_zenith: ArrayLike, azimuth: ArrayLike) -> NDArray[np.float64]:
    """The geometric kernel of sparse crowns that cast shadows; arguments as `ross_thick`."""
    sun, view, phi = (np.radians(np.asarray(angle, np.float64)) for angle in (sun_zenith, view_zenith, azimuth))
    sun, view = np.arctan(_B_R * np.tan(sun)), np.arctan(_B_R * np.tan(view))
    secants = 1 / np.cos(sun) + 1 / np.cos(view)
    tan_sun, tan_view = np.tan(sun), np.tan(view)
    distance = tan_sun**2 + tan_view**2 - 2 * tan_sun * tan_view * np.cos(phi)
    across = (tan_sun * tan_view * np.sin(phi)) ** 2
    cos_t = np.clip(_H_B * np.sqrt(np.maximum(distance, 0) + across) / secants, -1, 1)
    t = np.arccos(cos_t)
    overlap = (t - np.sin(t) * cos_t) * secants / np.pi
    lit = (1 + _cos_phase(sun, view, phi)) / (2 * np.cos(sun) * np.cos(view))
    kernel: NDArray[np.float64] = overlap - secants + lit
    return kernel


def _cos_phase(sun: NDArray[np.float64], view: NDArray[np.float64], phi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of the angle between sun and view; angles in radians."""
    cosine: NDArray[np.float64] = np.cos(sun) * np.cos(view) + np.sin(sun) * np.sin(view) * np.cos(phi)
    return np.clip(cosine, -1, 1)


def c_factor(
    band: str, sun_zenith: ArrayLike, view_zenith: ArrayLike, azimuth: ArrayLike, nadir_sun: ArrayLike | None = None
) -> NDArray[np.float64]:
    """What to multiply a band's reflectance by to get that at nadir.

    Args:
        band: its name.
        sun_zenith, view_zenith, azimuth: as in `ross_thick`.
        nadir_sun: sun zenith in degrees to which it is normalised; the scene's own if not given.

    Returns:
        the arguments' common shape. Inversion is division by it.

    Raises:
        KeyError: there is no such band.
    """
    weights = COEFFICIENTS[band]
    target = sun_zenith if nadir_sun is None else nadir_sun
    return _brdf(weights, target, 0.0, 0.0) / _brdf(weights, sun_zenith, view_zenith, azimuth)


def _brdf(
    weights: Coefficients, sun_zenith: ArrayLike, view_zenith: ArrayLike, azimuth: ArrayLike
) -> NDArray[np.float64]:
    volumetric = weights.volumetric * ross_thick(sun_zenith, view_zenith, azimuth)
    geometric = weights.geometric * li_sparse_reciprocal(sun_zenith, view_zenith, azimuth)
    brdf: NDArray[np.float64] = weights.isotropic + volumetric + geometric
    return brdf


def nominal_sun_zenith(latitude: ArrayLike) -> NDArray[np.float64]:
    """Sun zenith in degrees to normalise to at a latitude in degrees (Harmonized Landsat Sentinel-2)."""
    degrees = np.asarray(latitude, np.float64)
    return np.asarray(np.polynomial.polynomial.polyval(degrees, _NOMINAL), np.float64)
