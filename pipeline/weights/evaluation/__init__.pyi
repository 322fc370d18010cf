from .data import ImageOptions as ImageOptions
from .judging import SamplerChoice as SamplerChoice
from .judging import judge_fusion as judge_fusion
from .judging import judge_super_resolution as judge_super_resolution
from .report import Evaluation as Evaluation
from .report import to_terminal as to_terminal
from .report import write as write
