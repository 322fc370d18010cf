"""What a cube says of places: pixels under points, mosaics of areas in any CRS, patches to learn from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
