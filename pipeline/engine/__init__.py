"""Ray: the cluster, actors, tasks, and the board that shows what each worker does."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
