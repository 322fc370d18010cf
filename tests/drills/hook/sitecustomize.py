"""Read by every Python process that has this folder on its path, which a drill sees to: see `dying`."""

import os

if "DIFFFUSR_DRILL" in os.environ:
    from dying import obey_environment

    obey_environment()
