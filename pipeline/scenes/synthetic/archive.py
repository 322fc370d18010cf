"""The generated scenes as a STAC catalogue of COGs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from difffusr.kernels.bands import GSD_M
from difffusr.pipeline.scenes.synthetic.palette import ASSETS, BASELINE, SUN_AZIMUTH_DEG, SUN_ELEVATION_DEG
from difffusr.pipeline.scenes.synthetic.sensor import Look, RenderedScene

#: Name of the file with a granule's metadata.
_METADATA = "granule_metadata.xml"


def write_catalog(scenes: list[RenderedScene], folder: Path | str) -> Path:
    """Write a static STAC catalogue with relative links and COG assets, as Earth Search v1 names them.

    folder: created if missing. Returns the path of catalog.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for scene in scenes:
        home = folder / "items" / scene.id
        home.mkdir(parents=True, exist_ok=True)
        rasters: dict[str, NDArray[Any]] = {**scene.bands, "SCL": scene.scl}
        for name, pixels in rasters.items():
            gsd = GSD_M.get(name, 20)
            grid = Affine(gsd, 0, scene.left_m, 0, -gsd, scene.top_m)
            write_tiff(home / f"{name}.tif", pixels[None], grid, scene.epsg, "COG", nodata=0)
        if scene.look:
            (home / _METADATA).write_bytes(scene.look.metadata)
        items.append(_item(scene))
        _write_json(home / f"{scene.id}.json", items[-1])
    _write_json(folder / "collection.json", _collection(items))
    root = {"rel": "root", "href": "./catalog.json"}
    child = {"rel": "child", "href": "./collection.json"}
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "demo-world", "links": [root, child]}
    _write_json(folder / "catalog.json", {**catalog, "description": "Sentinel-2 scenes of a made-up world"})
    return folder / "catalog.json"


def _collection(items: list[dict[str, Any]]) -> dict[str, Any]:
    boxes = np.array([item["bbox"] for item in items])
    times = sorted(item["properties"]["datetime"] for item in items)
    links = [{"rel": "root", "href": "./catalog.json"}, {"rel": "parent", "href": "./catalog.json"}]
    links += [
        {"rel": "item", "href": f"./items/{item['id']}/{item['id']}.json", "type": "application/geo+json"}
        for item in items
    ]
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "sentinel-2-l2a",
        "license": "Apache-2.0",
        "description": "Made-up Sentinel-2 L2A products: no place on Earth looks like this",
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": links,
    }


def _item(scene: RenderedScene) -> dict[str, Any]:
    """The STAC item of a scene; its geometry is the outline of its valid pixels."""
    outline = _outline(scene)
    longitudes, latitudes = zip(*outline, strict=True)
    look = scene.look
    time = f"{scene.date}T{look.time if look else '10:36:29'}Z"
    day = scene.date.replace("-", "")
    began = "103031" if look is None else look.time.replace(":", "")
    names = (f"N{BASELINE.replace('.', '')}", f"R{look.orbit if look else 108:03d}", f"T{scene.tile}")
    uri = f"S2{scene.platform}_MSIL2A_{day}T{began}_{'_'.join(names)}_{day}T164512.SAFE"
    extensions = ("grid/v1.0.0", "mgrs/v1.0.0", "raster/v1.1.0", "eo/v1.0.0", "projection/v1.0.0", "view/v1.0.0")
    up = [("collection", "../../collection.json"), ("root", "../../catalog.json"), ("parent", "../../collection.json")]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": scene.id,
        "collection": "sentinel-2-l2a",
        "stac_extensions": [f"https://stac-extensions.github.io/{name}/schema.json" for name in extensions],
        "geometry": {"type": "Polygon", "coordinates": [[list(point) for point in outline]]},
        "bbox": [min(longitudes), min(latitudes), max(longitudes), max(latitudes)],
        "properties": {
            "datetime": time,
            "created": time,
            "updated": time,
            "platform": f"sentinel-2{scene.platform.lower()}",
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "eo:cloud_cover": scene.cloud_cover,
            "proj:epsg": scene.epsg,
            "grid:code": f"MGRS-{scene.tile}",
            "mgrs:utm_zone": int(scene.tile[:2]),
            "mgrs:latitude_band": scene.tile[2],
            "mgrs:grid_square": scene.tile[3:],
            **_angles(look),
            "s2:processing_baseline": BASELINE,
            "s2:product_uri": uri,
            "s2:sequence": "0",
            "s2:nodata_pixel_percentage": round(float(100 * (scene.scl == 0).mean()), 2),
            "earthsearch:boa_offset_applied": scene.offset_dn == 0,
        },
        "assets": {
            **{ASSETS.get(name, "scl"): _asset(scene, name) for name in (*scene.bands, "SCL")},
            **({"granule_metadata": _METADATA_ASSET} if look else {}),
        },
        "links": [{"rel": rel, "href": href, "type": "application/json"} for rel, href in up],
    }


_METADATA_ASSET = {"href": f"./{_METADATA}", "type": "application/xml", "roles": ["metadata"]}


def _angles(look: Look | None) -> dict[str, float]:
    """Properties of the view extension."""
    if look is None:
        return {"view:sun_azimuth": SUN_AZIMUTH_DEG, "view:sun_elevation": SUN_ELEVATION_DEG}
    return {
        "view:sun_azimuth": look.sun_deg[1],
        "view:sun_elevation": 90 - look.sun_deg[0],
        "view:incidence_angle": look.view_deg[0],
        "view:azimuth": look.view_deg[1],
    }


def _asset(scene: RenderedScene, name: str) -> dict[str, Any]:
    gsd = GSD_M.get(name, 20)
    pixels = scene.bands.get(name, scene.scl)
    raster: dict[str, Any] = {"nodata": 0, "data_type": str(pixels.dtype), "spatial_resolution": gsd}
    asset: dict[str, Any] = {
        "href": f"./{name}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "proj:shape": list(pixels.shape),
        "proj:transform": [gsd, 0, scene.left_m, 0, -gsd, scene.top_m],
        "raster:bands": [raster],
    }
    if name in scene.bands:
        raster |= {"bits_per_sample": 15, "scale": 0.0001, "offset": -scene.offset_dn / 10_000}
        asset |= {"roles": ["data", "reflectance"], "eo:bands": [{"name": ASSETS[name]}], "gsd": gsd}
    return asset


def _outline(scene: RenderedScene) -> list[tuple[float, float]]:
    """Closed ring of longitude, latitude around a scene's valid pixels, counter-clockwise."""
    height, width = (side * 20.0 for side in scene.scl.shape)
    ring = [(0.0, height), (width, height), (width, 0.0)]
    if scene.corner_m is None:
        ring += [(0.0, 0.0)]
    else:
        ring += [(scene.corner_m[0], 0.0), (0.0, scene.corner_m[1])]
    x, y = zip(*((scene.left_m + right, scene.top_m - down) for right, down in (*ring, ring[0])), strict=True)
    longitudes, latitudes = transform_points(f"EPSG:{scene.epsg}", "EPSG:4326", x, y)
    return list(zip(longitudes, latitudes, strict=True))


def write_tiff(
    path: Path, pixels: NDArray[Any], transform: Affine, epsg: int, driver: str, nodata: int | None = None,
    descriptions: tuple[str, ...] | None = None, tags: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write (bands, H, W) as a tiled GeoTIFF or a COG (whose overviews are means, or for classes nearest).

    tags: what the first band's values mean, where they are classes.
    """
    options: dict[str, Any] = {"compress": "deflate", "nodata": nodata}
    if driver == "COG":
        options |= {"blocksize": 256, "overview_resampling": "nearest" if pixels.dtype == np.uint8 else "average"}
    else:
        options |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band", "zlevel": 3}
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, dtype=pixels.dtype, count=count, height=height, width=width,
        crs=f"EPSG:{epsg}", transform=transform, **options,
    ) as raster:  # fmt: skip
        raster.write(pixels)
        raster.update_tags(1, **(tags or {}))
        if descriptions:
            raster.descriptions = descriptions


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
