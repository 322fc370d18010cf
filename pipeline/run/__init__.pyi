from .execution import execute as execute
from .result import RunResult as RunResult
from .stop import Stopped as Stopped
from .work import draft_of as draft_of
from .work import numbers_of as numbers_of
from .work import places_of as places_of
