"""What a run will take and cost: calibration of a machine, estimate of a plan."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
