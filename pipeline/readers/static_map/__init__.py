"""A map of a published cube that needs no server of ours: a page that reads the cube's Zarr itself."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
