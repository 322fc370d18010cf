"""The networks for GPUs: what lies between convolutions in few kernels, channels last, no tensor concatenated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
