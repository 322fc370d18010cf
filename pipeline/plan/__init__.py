"""What a run will do: scenes, chips, shards and their content keys; stored, compared, drawn."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
