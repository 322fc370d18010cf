"""Staged chips blended into shards, overviews made from shards, and the ledger of what is written."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
