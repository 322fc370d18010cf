"""Chips through Ray Data: read on CPUs, super-resolved by actors, staged as one object each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
