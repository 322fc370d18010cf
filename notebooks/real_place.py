"""Draws README's picture of a real place: what was measured at 10 m beside the cube at 2.5 m.

    python notebooks/real_place.py real.zarr S2B_48QUE_20200223_0_L2A 17.9380 103.7222 notebooks/real-place.jpg

The cube is of `difffusr run` with `model: {sampler: fast}`; the folder is its scene's, with B04, B03 and B02 as
GeoTIFFs of reflectance times 10 000; latitude and longitude are the middle of the picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw, ImageFont
from pyproj import Transformer
from rasterio.windows import from_bounds

from difffusr.pipeline.readers import open_cube

#: Pixels of 2.5 m of a side, a multiple of 4; how many of the picture one is; the gap between both sides.
WIDE, HIGH, TIMES, GAP = 400, 320, 2, 8


def main(url: str, folder: str, lat: str, lon: str, out: str) -> None:
    cube = open_cube(url)
    (zone,) = cube.zones
    x, y = Transformer.from_crs("EPSG:4326", f"EPSG:{zone}", always_xy=True).transform(float(lon), float(lat))
    left, top = round(x / 10) * 10 - 1.25 * WIDE, round(y / 10) * 10 + 1.25 * HIGH
    box = left, top - 2.5 * HIGH, left + 2.5 * WIDE, top
    fine = cube.dataset(zone).reflectance.isel(time=0).sel(
        band=["B04", "B03", "B02"], x=slice(box[0], box[2]), y=slice(box[3], box[1])
    )  # fmt: skip
    coarse = np.stack([measured(folder, band, box) for band in ("red", "green", "blue")])
    low, high = np.percentile(coarse, (0.5, 99.5))
    sides = [drawn(coarse, low, high).resize((WIDE * TIMES, HIGH * TIMES), Image.Resampling.NEAREST)]
    sides.append(drawn(fine.values, low, high).resize((WIDE * TIMES, HIGH * TIMES), Image.Resampling.NEAREST))
    picture = Image.new("RGB", (2 * WIDE * TIMES + GAP, HIGH * TIMES), "white")
    for at, (side, name) in enumerate(zip(sides, ("10 m, measured", "2.5 m"), strict=True)):
        pen = ImageDraw.Draw(side)
        font = ImageFont.load_default(size=26)
        width = pen.textlength(name, font=font)
        pen.rectangle((14, 14, 38 + width, 58), fill="white")
        pen.text((26, 19), name, fill="black", font=font)
        picture.paste(side, (at * (WIDE * TIMES + GAP), 0))
    picture.save(out, quality=85)


def measured(folder: str, band: str, box: tuple[float, float, float, float]) -> np.ndarray:
    """(h, w) float32 reflectance of a band of 10 m."""
    (path,) = Path(folder).glob(f"*{ {'red': 'B04', 'green': 'B03', 'blue': 'B02'}[band] }*.tif")
    with rasterio.open(path) as file:
        found = file.read(1, window=from_bounds(*box, file.transform))
    return (found / 10_000).astype(np.float32)


def drawn(values: np.ndarray, low: float, high: float) -> Image.Image:
    """(3, h, w) as a picture; all bands have one range."""
    part = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1) ** 0.75
    return Image.fromarray(np.rint(part * 255).astype(np.uint8).transpose(1, 2, 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
