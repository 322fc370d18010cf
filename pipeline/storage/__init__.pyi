from .lease import Lease as Lease
from .lease import holder_of as holder_of
from .objects import Storage as Storage
from .objects import place_of as place_of
from .objects import store_failures as store_failures
from .places import cube_staging_of as cube_staging_of
from .places import staging_of as staging_of
from .places import storage_of as storage_of
