"""Sentinel-2 scenes: found in a catalogue, read from their files, or generated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
