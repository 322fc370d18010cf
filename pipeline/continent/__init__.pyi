from .maker import WarpMaker as WarpMaker
from .maker import warp_maker as warp_maker
from .meeting import zone_weights as zone_weights
from .planning import ContinentPlan as ContinentPlan
from .planning import draft_continent as draft_continent
from .planning import plan_continent as plan_continent
from .planning import with_source as with_source
from .planning import write_continent as write_continent
