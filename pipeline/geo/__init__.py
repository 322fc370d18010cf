"""Geometry without pixels: lattices, UTM zones, areas, shapes on the globe."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
