"""Where things lie: this repository, and the data that may lie beside it."""

from __future__ import annotations

from pathlib import Path

#: The repository's root.
ROOT = Path(__file__).resolve().parents[2]

#: Real data, numbers of the reference and schemas. Tests that need them skip where the folder is not there.
SHARED = (ROOT.parent / "shared").resolve()
