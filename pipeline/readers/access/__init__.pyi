from .in_ray import ray_patches as ray_patches
from .learning import CubePatches as CubePatches
from .mosaics import mosaic as mosaic
from .opened import OpenCube as OpenCube
from .opened import open_cube as open_cube
from .pictures import picture as picture
from .points import sample as sample
