"""A granule's metadata (MTD_TL.xml) for the generated scenes: the angles of sun and view on the tile's grid of 5 km."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Final

import numpy as np
from numpy.typing import NDArray

from difffusr.pipeline.scenes.synthetic.orbits import Acquisition, Array
from difffusr.pipeline.scenes.synthetic.palette import BASELINE, EPSG

#: Upper left corner of the tiles in UTM metres, their side, and the nodes of their grids of angles.
CORNERS: Final = {"32TMT": (399_960, 5_300_040), "32TNT": (499_980, 5_300_040)}
_SIDE_M, NODES, STEP_M = 109_800, 23, 5000

#: Bands as the metadata number them.
_NUMBERED: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

_NAMESPACE: Final = "https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd"


def granule_metadata(tile: str, acquisition: Acquisition) -> bytes:
    """The metadata of one of the `CORNERS` on a day: position, angles of the sun, and of each detector that looks."""
    ElementTree.register_namespace("n1", _NAMESPACE)
    root = ElementTree.Element(f"{{{_NAMESPACE}}}Level-2A_Tile_ID")
    general = ElementTree.SubElement(root, f"{{{_NAMESPACE}}}General_Info")
    sensed = f"{acquisition.date}T{acquisition.orbit.time}.000000Z"
    _leaf(general, "TILE_ID", f"S2{acquisition.platform}_MADE_UP_L2A_TL_T{tile}_N{BASELINE}")
    _leaf(general, "SENSING_TIME", sensed)
    geometry = ElementTree.SubElement(root, f"{{{_NAMESPACE}}}Geometric_Info")
    _add_position(ElementTree.SubElement(geometry, "Tile_Geocoding"), tile)
    _add_angles(ElementTree.SubElement(geometry, "Tile_Angles"), tile, acquisition)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n{text}\n'.encode()


def nodes_of(tile: str) -> tuple[Array, Array]:
    """UTM x and y of a tile's nodes, (23, 23) each."""
    left, top = CORNERS[tile]
    steps = np.arange(NODES) * float(STEP_M)
    x, y = np.meshgrid(left + steps, top - steps)
    return x, y


def _add_position(parent: ElementTree.Element, tile: str) -> None:
    left, top = CORNERS[tile]
    zone = EPSG % 100
    _leaf(parent, "HORIZONTAL_CS_NAME", f"WGS84 / UTM zone {zone}N")
    _leaf(parent, "HORIZONTAL_CS_CODE", f"EPSG:{EPSG}")
    for gsd in (10, 20, 60):
        size = ElementTree.SubElement(parent, "Size", resolution=str(gsd))
        _leaf(size, "NROWS", str(_SIDE_M // gsd))
        _leaf(size, "NCOLS", str(_SIDE_M // gsd))
    for gsd in (10, 20, 60):
        place = ElementTree.SubElement(parent, "Geoposition", resolution=str(gsd))
        for name, value in (("ULX", left), ("ULY", top), ("XDIM", gsd), ("YDIM", -gsd)):
            _leaf(place, name, str(value))


def _add_angles(parent: ElementTree.Element, tile: str, acquisition: Acquisition) -> None:
    x, y = nodes_of(tile)
    orbit = acquisition.orbit
    sun = orbit.sun(x, y)
    _add_grid(ElementTree.SubElement(parent, "Sun_Angles_Grid"), *sun)
    _add_mean(ElementTree.SubElement(parent, "Mean_Sun_Angle"), *sun)
    looking = [(detector, seen) for detector, seen in orbit.detectors_at(x, y) if seen.any()]
    means = ElementTree.Element("Mean_Viewing_Incidence_Angle_List")
    for number, band in enumerate(_NUMBERED):
        views = []
        for detector, seen in looking:
            zenith, azimuth = (np.where(seen, angle, np.nan) for angle in orbit.view(band, detector, x, y))
            grid = ElementTree.SubElement(
                parent, "Viewing_Incidence_Angles_Grids", bandId=str(number), detectorId=str(detector)
            )
            _add_grid(grid, zenith, azimuth)
            views.append((zenith[seen], azimuth[seen]))
        mean = ElementTree.SubElement(means, "Mean_Viewing_Incidence_Angle", bandId=str(number))
        _add_mean(mean, *(np.concatenate(angles) for angles in zip(*views, strict=True)))
    parent.append(means)


def _add_grid(parent: ElementTree.Element, zenith: Array, azimuth: Array) -> None:
    for name, angles in (("Zenith", zenith), ("Azimuth", azimuth)):
        grid = ElementTree.SubElement(parent, name)
        for step in ("COL_STEP", "ROW_STEP"):
            _leaf(grid, step, str(STEP_M), unit="m")
        values = ElementTree.SubElement(grid, "Values_List")
        for row in angles.tolist():
            _leaf(values, "VALUES", " ".join("NaN" if angle != angle else f"{angle:.6g}" for angle in row))


def _add_mean(parent: ElementTree.Element, zenith: NDArray[np.float64], azimuth: NDArray[np.float64]) -> None:
    direction = mean_direction(zenith, azimuth)
    for name, angle in zip(("ZENITH_ANGLE", "AZIMUTH_ANGLE"), direction, strict=True):
        _leaf(parent, name, f"{angle:.12g}", unit="deg")


def mean_direction(zenith: Array, azimuth: Array) -> tuple[float, float]:
    """Mean zenith, and azimuth of the mean horizontal direction, in degrees."""
    turned = np.exp(1j * np.radians(azimuth)).mean()
    return float(zenith.mean()), float(np.degrees(np.angle(turned)) % 360)


def _leaf(parent: ElementTree.Element, name: str, text: str, **attributes: str) -> None:
    ElementTree.SubElement(parent, name, attributes).text = text
