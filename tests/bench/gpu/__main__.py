"""`python tests/bench/gpu`: see `script`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # instead of this folder, whose modules are `gpu.…`

from gpu.bare import make_importable  # noqa: E402

make_importable()

from gpu.script import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
