from .chosen import USUAL as USUAL
from .chosen import Export as Export
from .chosen import exports_of as exports_of
from .writing import export_cogs as export_cogs
