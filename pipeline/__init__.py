"""Everything that touches the world: catalogues, rasters, Ray, Zarr, the command line."""
