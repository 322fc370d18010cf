"""Parts of a cube as Cloud Optimized GeoTIFFs: in its zones or in any CRS, whole or in tiles."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
