from .install import fuse as fuse
