"""Points on both sides of a border of UTM zones, an area across it, a picture. Needs `pip install difffusr` alone."""

import os

import numpy as np

from difffusr.pipeline.readers import open_cube, picture

cube = open_cube(os.environ.get("CUBE", "demo-output/two-zones/zones.zarr"))
middle = cube.footprint().centroid
lon, lat = middle.x, middle.y
points = np.random.default_rng(0).uniform((lon - 0.002, lat - 0.001), (lon + 0.002, lat + 0.001), (1000, 2))
red, infrared = cube.sample(points, bands=["B04", "B08"]).reflectance.transpose("band", "time", "point")
ndvi = (infrared - red) / (infrared + red)
print(f"{cube}: NDVI of {ndvi.count():d} of 1000 points {ndvi.mean():.3f}")
image = cube.mosaic(
    bbox=(lon - 0.004, lat - 0.002, lon + 0.004, lat + 0.002), crs="EPSG:3035", bands=["B04", "B03", "B02"]
)
print(f"{image.sizes['y']} × {image.sizes['x']} pixels of {image.spatial_ref.crs_wkt.split(chr(34))[1]}")
picture(image).save("across-zones.png")
