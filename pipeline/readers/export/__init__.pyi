from .chosen import USUAL as USUAL
from .chosen import Export as Export
from .chosen import exports_of as exports_of
from .tiling import Done as Done
from .tiling import How as How
from .tiling import export_items as export_items
from .writing import export_cogs as export_cogs
