"""The 12 bands of Sentinel-2 Level-2A: order, native resolution, groups and sensor MTF."""

from __future__ import annotations

from typing import Final

#: Band order everywhere in the project: arrays, cube, networks.
BANDS: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")

#: Native ground sampling distance in metres, by band.
GSD_M: Final[dict[str, int]] = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20,
    "B07": 20, "B08": 10, "B8A": 20, "B09": 60, "B11": 20, "B12": 20,
}  # fmt: skip

#: Bands by native GSD, in the channel order the fusion networks use (reference section 2).
GROUPS: Final[dict[int, tuple[str, ...]]] = {
    10: ("B04", "B03", "B02", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09"),
}

#: Red, green, blue.
RGB: Final = ("B04", "B03", "B02")

#: Target ground sampling distance in metres, and the factor from the 10 m grid.
TARGET_GSD_M: Final = 2.5
SCALE: Final = 4

#: Central wavelength in nanometres (Sentinel-2A, ESA MSI spectral responses), by band.
WAVELENGTH_NM: Final[dict[str, float]] = {
    "B01": 442.7, "B02": 492.4, "B03": 559.8, "B04": 664.6, "B05": 704.1, "B06": 740.5,
    "B07": 782.8, "B08": 832.8, "B8A": 864.7, "B09": 945.1, "B11": 1613.7, "B12": 2202.4,
}  # fmt: skip

#: Modulation transfer function of the instrument at its Nyquist frequency, by band (the list of the reference's MTF
#: network, read in band order).
MTF_NYQUIST: Final[dict[str, float]] = {
    "B01": 0.29, "B02": 0.30, "B03": 0.28, "B04": 0.24, "B05": 0.23, "B06": 0.23,
    "B07": 0.25, "B08": 0.25, "B8A": 0.27, "B09": 0.28, "B11": 0.30, "B12": 0.30,
}  # fmt: skip


def band_indices(names: tuple[str, ...] | list[str]) -> list[int]:
    """Positions of bands in `BANDS` order; raises ValueError for an unknown name."""
    return [BANDS.index(name) for name in names]


def native_factor(band: str) -> int:
    """How many 2.5 m pixels span one native pixel of a band (4, 8 or 24)."""
    return int(GSD_M[band] / TARGET_GSD_M)
