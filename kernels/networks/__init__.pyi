from .degradation_encoder import MomentumContrast as MomentumContrast
from .execution import Recorded as Recorded
from .fused import fuse as fuse
from .rrdb import RRDBNet as RRDBNet
from .stage1 import PUBLISHED as PUBLISHED
from .stage1 import SMALL as SMALL
from .stage1 import Stage1 as Stage1
from .stage1 import Stage1Config as Stage1Config
