"""Shipped weights as safetensors, with their sha256 in ``index.json``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
