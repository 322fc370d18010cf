"""What all STAC documents of a cube have in common: versions, extensions, media types, bands, colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from difffusr.kernels.bands import BANDS, GSD_M, WAVELENGTH_NM
from difffusr.pipeline.cube import Cube
from difffusr.pipeline.ground.pixels import DN_SCALE
from difffusr.pipeline.readers.view import QUALITY, Label, layers_of, rgb

STAC_VERSION: Final = "1.1.0"

#: Extensions by the prefix of their fields.
EXTENSIONS: Final = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "eo:bands": "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "cube": "https://stac-extensions.github.io/datacube/v2.2.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "renders": "https://stac-extensions.github.io/render/v2.0.0/schema.json",
    "zarr": "https://stac-extensions.github.io/zarr/v1.1.0/schema.json",
    "xarray": "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json",
    "mlm": "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
}

#: How a multihash begins that is a sha256 (multicodec 0x12, 32 bytes).
SHA256: Final = "1220"

#: Media types: the one that STAC catalogues use for Zarr, those of STAC's own documents, and of files.
ZARR, GEOJSON, JSON, PARQUET, COG, PNG = (
    "application/vnd.zarr; version=3", "application/geo+json", "application/json", "application/vnd.apache.parquet",
    "image/tiff; application=geotiff; profile=cloud-optimized", "image/png",
)  # fmt: skip

LEGAL_NOTICE: Final = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"

PROVIDERS: Final = [{"name": "ESA", "roles": ["producer", "licensor"], "url": "https://sentinels.copernicus.eu"}]

#: The common names of Sentinel-2's bands in the EO extension.
_COMMON_NAMES: Final = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071", "B06": "rededge075",
    "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip

#: Ways to show reflectance, of those that the map offers.
_SHOWN: Final = ("true-colour", "infrared")


def extensions_of(*prefixes: str) -> list[str]:
    """Addresses of extensions, by the prefixes of their fields."""
    return [EXTENSIONS[prefix] for prefix in prefixes]


def bands(order: Sequence[str] = BANDS) -> list[dict[str, Any]]:
    """Descriptions of the bands, in an order."""
    return [
        {
            "name": band,
            "eo:common_name": _COMMON_NAMES[band],
            "eo:center_wavelength": round(WAVELENGTH_NM[band] / 1e3, 4),
            "description": f"super-resolved from {GSD_M[band]} m",
        }
        for band in order
    ]


def bands_of_old(order: Sequence[str] = BANDS) -> list[dict[str, Any]]:
    """The same as the EO extension had it before STAC 1.1: what odc-stac takes the names of a file's bands from."""
    return [
        {
            "name": band,
            "common_name": re.sub(r"(?<=^rededge)\d+$", "", _COMMON_NAMES[band]),
            "center_wavelength": round(WAVELENGTH_NM[band] / 1e3, 4),
        }
        for band in order
    ]


def flags_of(attributes: Mapping[str, Any]) -> dict[int, str]:
    """Meanings of a variable's numbers, from its CF attributes; empty if it has none."""
    if "flag_values" not in attributes:
        return {}
    return dict(zip(map(int, attributes["flag_values"]), str(attributes["flag_meanings"]).split(), strict=True))


def labels_of(attributes: Mapping[str, Any]) -> dict[int, tuple[str, Label]]:
    """Meaning, colour and name of a variable's numbers, as the map shows them."""
    return {
        number: (meaning, QUALITY.get(meaning, Label("#888888", meaning.replace("_", " "))))
        for number, meaning in flags_of(attributes).items()
    }


def colour_of(label: Label) -> tuple[int, int, int]:
    """Red, green and blue of a label, 0 to 255."""
    red, green, blue = rgb([label.colour])[0].tolist()
    return red, green, blue


def classes_of(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes of a variable of labels, by the classification extension."""
    return [
        {
            "value": number,
            "name": meaning,
            "title": label.name,
            "description": label.name,
            "color_hint": label.colour[1:].upper(),
            "nodata": meaning == "no_data",
        }
        for number, (meaning, label) in labels_of(attributes).items()
    ]


def renders_of(assets: Mapping[str, str], order: Sequence[str], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Ways to show an item, by the render extension.

    Args:
        assets: keys of the assets, by variable.
        order: of the bands of reflectance.
        attributes: of quality.
    """
    shown: dict[str, Any] = {}
    if "reflectance" in assets:
        for name, layer in layers_of(["reflectance"]).items():
            if name in _SHOWN:
                shown[name] = {
                    "title": layer.title,
                    "assets": [assets["reflectance"]],
                    "bands": [list(layer.bands)],
                    "bidx": [list(order).index(band) + 1 for band in layer.bands],
                    "rescale": [[round(layer.low * DN_SCALE), round(layer.high * DN_SCALE)]] * 3,
                    "nodata": 0,
                    "resampling": "average",
                }
    if "quality" in assets:
        labels = labels_of(attributes).items()
        shown["quality"] = {
            "title": "Quality",
            "assets": [assets["quality"]],
            "bidx": [1],
            "colormap": {
                str(number): [*colour_of(label), 0 if meaning == "no_data" else 255]
                for number, (meaning, label) in labels
            },
            "nodata": 0,
            "resampling": "mode",
        }
    return shown


def link_to_model(cube: Cube, href: str = "./model.json") -> list[dict[str, Any]]:
    """The link to the model's document, if there is one."""
    if not cube.made_with.get("weights"):
        return []
    title = "the model that made it"
    return [{"rel": "derived_from", "href": href, "type": GEOJSON, "title": title, "mlm:name": "DiffFuSR"}]
