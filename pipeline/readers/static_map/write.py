"""Write the page of a map that reads a cube's Zarr by itself, from any web server or object store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from rasterio.crs import CRS

from difffusr.kernels.bands import BANDS, GSD_M, WAVELENGTH_NM
from difffusr.pipeline.cube import Cube, read_window
from difffusr.pipeline.geo import Lattice, PixelWindow
from difffusr.pipeline.readers.static_map.address import cube_address, origin_of
from difffusr.pipeline.readers.static_map.libraries import library_files
from difffusr.pipeline.readers.view import QUALITY, describe_layer, label_colours, layers_of, page_files
from difffusr.pipeline.storage import Storage

_PAGE: Final = Path(__file__).with_name("page")

#: What the page has in common with that of `difffusr view`: scripts, and style sheets in their order.
_SHARED: Final = ("address.js", "dom.js", "legend.js", "periods.js", "swipe.js", "icon.svg")
_STYLES: Final = ("base.css", "stage.css", "panel.css", "phone.css")

#: What layers are of. Colours of source scenes are not among them: their names are text on pages of their own.
_VARIABLES: Final = ("reflectance", "quality", "looks", "reflectance_std")

#: CRS that OpenLayers knows besides UTM zones.
_KNOWN: Final = ("EPSG:4326", "EPSG:3857")

#: With more pixels than this in its coarsest level, a zone's extent is its whole window instead of its data.
_MOST_SEARCHED: Final = 4096 * 4096


def write_static_map(
    cube: Cube, folder: Storage, *, cube_url: str | None, openlayers: Path | None, cache: Path
) -> tuple[str, str]:
    """Write `index.html` and what it needs; existing files are replaced. The page reads zones, periods and pixels from
    the cube each time it is opened, so it need not be written again after a publication.

    Args:
        folder: to write to.
        cube_url: where the page finds the cube; None finds it out, see `cube_address`.
        openlayers, cache: see `library_files`.

    Returns:
        The page's URL, and the address where it looks for the cube.

    Raises:
        ConfigError: no page can reach the cube; `openlayers` lacks a package.
        StoreError: the cube cannot be read, or the folder cannot be written to.
        DifffusrError: the libraries cannot be fetched.
    """
    address = cube_address(cube.storage, folder, cube_url)
    settings = settings_of(cube, address)
    libraries = library_files(openlayers, cache, with_proj4=bool(settings["projections"]))
    files = page_of(settings, libraries.pop("ol.css").decode())
    index = files.pop("index.html")
    for name, data in (files | {f"library/{name}": data for name, data in libraries.items()}).items():
        folder.write(name, data, content_type=_type_of(name))
    folder.write("index.html", index, content_type=_type_of("index.html"))  # last: it needs all others
    return f"{folder.url}/index.html", address


def settings_of(cube: Cube, address: str) -> dict[str, Any]:
    """What the page is told: where the cube is, its layers, and of its zones what the metadata do not have."""
    lattices = {epsg: cube.lattice(epsg) for epsg in cube.zones}
    return {
        "cube": address,
        "bands": [{"name": band, "nm": WAVELENGTH_NM[band], "gsd_m": GSD_M[band]} for band in BANDS],
        "layers": [
            describe_layer(layer, label_colours(layer, {}, {}) if layer.kind == "labels" else None)
            for layer in layers_of(_VARIABLES).values()
        ],
        "quality": {meaning: asdict(label) for meaning, label in QUALITY.items()},
        "projections": dict(filter(None, (_proj4(epsg, lattice) for epsg, lattice in lattices.items()))),
        "zones": {
            epsg: {"gsd_m": lattices[epsg].ground_m(cube.window(epsg)), "extent": _extent(cube, epsg)}
            for epsg in cube.zones
        },
        "publication": cube.attributes.get("difffusr:publication"),
    }


def page_of(settings: Mapping[str, Any], ol_css: str) -> dict[str, bytes]:
    """The page's own files by name.

    Args:
        settings: as `settings_of` makes them.
        ol_css: OpenLayers' style sheet, which becomes part of the page's.
    """
    shared = page_files()
    scripts = sorted(path.name for path in [*_PAGE.glob("*.js"), *map(Path, _SHARED)] if path.suffix == ".js")
    scripts.remove("decoder.js")  # a worker's
    libraries = ["zarrita.js", *(["proj4.js"] if settings["projections"] else []), "ol.js"]
    html = (_PAGE / "index.html").read_text(encoding="utf-8")
    for mark, text in (
        ("%POLICY%", _policy(settings["cube"])),
        ("%PRELOADS%", "\n".join(f'    <link rel="modulepreload" href="page/{name}" />' for name in scripts)),
        ("%SCRIPTS%", "\n".join(f'    <script defer src="library/{name}"></script>' for name in libraries)),
        ("%SETTINGS%", json.dumps(settings).replace("<", "\\u003c")),
    ):
        html = html.replace(mark, text)
    styles = [*(shared[name] for name in _STYLES), _PAGE / "static.css"]
    return {
        "index.html": html.encode(),
        "page/map.css": "".join([ol_css, *(path.read_text(encoding="utf-8") for path in styles)]).encode(),
        **{f"page/{name}": shared[name].read_bytes() for name in _SHARED},
        **{f"page/{path.name}": path.read_bytes() for path in sorted(_PAGE.glob("*.js"))},
    }


def _policy(address: str) -> str:
    """Only files beside the page, and the cube. OpenLayers has pictures in its style sheet."""
    cube = origin_of(address)
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        f"connect-src 'self'{f' {cube}' if cube else ''}; worker-src 'self'; base-uri 'none'; form-action 'none'"
    )


def _proj4(epsg: int, lattice: Lattice) -> tuple[str, str] | None:
    """Of a CRS that OpenLayers does not know, its name on the page and what proj4 calls it."""
    code = lattice.code or f"difffusr:{epsg}"
    if code in _KNOWN or (code.startswith(("EPSG:326", "EPSG:327")) and 1 <= epsg % 100 <= 60):
        return None
    return code, CRS.from_wkt(lattice.known.to_wkt()).to_proj4()  # with the shift to WGS 84, which pyproj leaves out


def _extent(cube: Cube, epsg: int) -> list[float] | None:
    """Left, bottom, right, top of a zone's data in its own coordinates, from its coarsest level; None if there are
    none, or too many pixels."""
    level, window, lattice = cube.overviews(epsg), cube.window(epsg), cube.lattice(epsg)
    array = cube.array(epsg, "quality", level)
    whole = PixelWindow(0, 0, *array.shape[-2:])
    if whole.height * whole.width > _MOST_SEARCHED:
        return None
    seen = sum(read_window(array, step, whole, whole) > 0 for step, _ in cube.periods(epsg).values())
    rows, cols = (np.flatnonzero(np.any(seen, axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    left, _, _, top = lattice.bounds(window)
    pixel = lattice.pixel * 2**level
    edges = (left + cols[0] * pixel, top - (rows[-1] + 1) * pixel, left + (cols[-1] + 1) * pixel, top - rows[0] * pixel)
    return [float(edge) for edge in edges]


def _type_of(name: str) -> str:
    """What object stores say of a file: browsers run no script of another type."""
    return _TYPES[name[name.rindex(".") :]]


_TYPES: Final = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip
