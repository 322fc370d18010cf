"""One cube for a continent: the zones of a cube brought into one CRS."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
