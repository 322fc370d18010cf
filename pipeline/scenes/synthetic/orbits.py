"""Two relative orbits over the generated world: where sun and sensor stand, and what each acquisition went through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.kernels.brdf import COEFFICIENTS, li_sparse_reciprocal, ross_thick
from difffusr.pipeline.scenes.synthetic.palette import CODE, LEFT_M, OFFSET_DN, TOP_M

Array = NDArray[np.float64]

#: The instrument: degrees of view zenith for each kilometre from the ground track; width of the strip one of the twelve
#: detectors sees, and how far it reaches into its neighbours'; direction of flight.
_DEG_PER_KM: Final = 0.079
_STRIP_KM, _OVERLAP_KM, DETECTORS = 24.2, 0.7, range(1, 13)
_HEADING_DEG: Final = 195.0

#: How far ahead or, every other detector, behind a band looks: degrees along the track.
_ALONG_DEG: Final[dict[str, float]] = {
    "B01": 1.25, "B02": 0.55, "B03": 0.65, "B04": 0.75, "B05": 0.85, "B06": 0.95, "B07": 1.05, "B08": 0.60,
    "B8A": 1.10, "B09": 1.40, "B10": 0.70, "B11": 0.95, "B12": 1.30,
}  # fmt: skip


@dataclass(frozen=True)
class Orbit:
    """A relative orbit.

    Attributes:
        number: of the 143.
        time: of day of the acquisition, UTC.
        east_km: how far east of its ground track the world's upper left corner lies; negative where it is seen from
            the east.
        sun_deg: zenith and azimuth of the sun at that corner.
    """

    number: int
    time: str
    east_km: float
    sun_deg: tuple[float, float]

    def sun(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Zenith and azimuth of the sun in degrees, at UTM metres."""
        east, north = (x - LEFT_M) / 1000, (y - TOP_M) / 1000
        zenith, azimuth = self.sun_deg
        return zenith - 0.0028 * east + 0.0087 * north, azimuth + 0.0110 * east + 0.0010 * north

    def view(self, band: str, detector: int, x: Array, y: Array) -> tuple[Array, Array]:
        """Zenith and azimuth of a detector in degrees as seen from UTM metres, whether it looks there or not."""
        across = -_DEG_PER_KM * self._from_track(x, y)
        along = np.where(detector % 2, 1.0, -1.0) * _ALONG_DEG[band]
        heading = np.radians(_HEADING_DEG)
        eastwards = along * np.sin(heading) - across * np.cos(heading)
        northwards = along * np.cos(heading) + across * np.sin(heading)
        return np.hypot(across, along), np.degrees(np.arctan2(eastwards, northwards)) % 360

    def detector_at(self, x: Array, y: Array) -> NDArray[np.int64]:
        """The detector whose pixels a product has at a place."""
        return np.clip(np.floor(self._from_track(x, y) / _STRIP_KM).astype(np.int64) + 7, 1, 12)

    def detectors_at(self, x: Array, y: Array) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Each detector and where it looks: two at once where strips overlap."""
        from_track = self._from_track(x, y)
        for detector in DETECTORS:
            start = (detector - 7) * _STRIP_KM
            yield detector, (from_track >= start - _OVERLAP_KM) & (from_track < start + _STRIP_KM + _OVERLAP_KM)

    def _from_track(self, x: Array, y: Array) -> Array:
        """Kilometres from the ground track, eastwards and square to it."""
        heading = np.radians(_HEADING_DEG)
        east, north = (x - LEFT_M) / 1000, (y - TOP_M) / 1000
        return self.east_km - east * np.cos(heading) + north * np.sin(heading)


#: One passes west of the world and looks at it against the sun; the other passes east, and its ground is bright. In a
#: world of 10 km the second has the border of two detectors; in one of up to 4 km neither.
FROM_WEST: Final = Orbit(108, "10:36:29", 106.0, (28.2, 152.0))
FROM_EAST: Final = Orbit(65, "10:26:31", -129.6, (29.3, 148.0))


@dataclass(frozen=True)
class Haze:
    """Light that the air adds: reflectance in blue, how unevenly it lies (standard deviation over mean)."""

    blue: float
    uneven: float


@dataclass(frozen=True)
class Acquisition:
    """A day on which the world was seen.

    Attributes:
        date, platform, orbit: ISO date, letter, and from where.
        haze, gain: by tile, as the atmospheric correction left them.
        clouds: centre and radius as parts of the world's width, height and mean side.
        offset_dn: what the pixels carry.
        mown: whether it was after the harvest.
    """

    date: str
    platform: str
    orbit: Orbit
    haze: tuple[Haze, Haze]
    gain: tuple[float, float]
    clouds: tuple[tuple[float, float, float], ...]
    offset_dn: int = 0
    mown: bool = False


#: Ten days. The first has haze that the classification hardly sees, and no cloud: by its classes it is the best of all.
#: The last has some haze. The second and third, from either side, have clouds in opposite quarters: a mosaic of the
#: clearest alternates between the orbits.
ACQUISITIONS: Final = (
    Acquisition("2023-06-10", "B", FROM_EAST, (Haze(0.084, 0.35), Haze(0.088, 0.35)), (1.0, 1.0), ()),
    Acquisition(
        "2023-06-13", "B", FROM_WEST, (Haze(0.001, 0.2), Haze(0.002, 0.2)), (1.0, 0.994),
        ((0.76, 0.27, 0.16), (0.26, 0.79, 0.16)),
    ),
    Acquisition(
        "2023-06-15", "A", FROM_EAST, (Haze(0.006, 0.2), Haze(0.007, 0.2)), (1.0, 0.994),
        ((0.24, 0.27, 0.16), (0.80, 0.77, 0.16)),
    ),
    Acquisition(
        "2023-06-18", "A", FROM_WEST, (Haze(0.002, 0.2), Haze(0.001, 0.2)), (1.0, 1.003),
        ((0.55, 0.15, 0.18), (0.15, 0.85, 0.14), (0.9, 0.6, 0.14)), OFFSET_DN, mown=True,
    ),
    Acquisition(
        "2023-06-20", "B", FROM_EAST, (Haze(0.021, 0.15), Haze(0.019, 0.15)), (1.0, 0.997),
        ((0.07, 0.4, 0.12), (0.5, 0.6, 0.12), (0.93, 0.3, 0.12), (0.25, 0.95, 0.1), (0.75, 0.95, 0.1)), mown=True,
    ),
)  # fmt: skip

#: What haze adds to each band in BANDS order, where it adds 1 to blue. It takes half as much of the ground's light.
HAZE_COLOUR: Final = np.array([1.2, 1.0, 0.5, 0.42, 0.3, 0.15, 0.08, 0, 0, 0, 0, 0], np.float32)
HAZE_DIMS: Final = 0.5

#: By group of land cover: its classes, and how much of the volumetric and of the geometric part of the global
#: coefficients it has. None has just those, so that factors from them leave something over.
SURFACES: Final[dict[str, tuple[tuple[int, ...], float, float]]] = {
    "plants": ((CODE["crop"], CODE["grassland"], CODE["garden"]), 1.15, 1.05),
    "forest": ((CODE["forest"],), 1.20, 1.20),
    "bare": ((CODE["bare soil"], CODE["road"], CODE["track"], CODE["building"]), 0.82, 1.10),
    "water": ((CODE["water"],), 0.80, 0.80),
}


def brightness(surface: str, band: str, orbit: Orbit, x: Array, y: Array) -> Array:
    """What a surface's reflectance at nadir is multiplied by when an orbit's sensor looks at it from its side."""
    _, volumetric, geometric = SURFACES[surface]
    weights = COEFFICIENTS[band]
    sun, sun_azimuth = orbit.sun(x, y)
    detector = orbit.detector_at(x, y)
    view, view_azimuth = np.zeros(sun.shape), np.zeros(sun.shape)
    for number in np.unique(detector):
        here = detector == number
        view[here], view_azimuth[here] = orbit.view(band, int(number), x[here], y[here])

    def reflected(zenith: Array) -> Array:
        relative = sun_azimuth - view_azimuth
        kernels = (
            volumetric * weights.volumetric * ross_thick(sun, zenith, relative),
            geometric * weights.geometric * li_sparse_reciprocal(sun, zenith, relative),
        )
        total: Array = weights.isotropic + kernels[0] + kernels[1]
        return total

    ratio: Array = reflected(view) / reflected(np.zeros(view.shape))
    return ratio
