"""Real scenes for the tests of balance."""

from __future__ import annotations

import pytest
from real_tiles import FOLDER, TOP, Tile, read_tile


@pytest.fixture(scope="session")
def real_tiles() -> list[Tile]:
    """33TWM and 33TWL on 13, 15 and 20 August 2023, brought to nadir."""
    if not FOLDER.exists():
        pytest.skip(f"no real scenes of two orbits: {FOLDER} is not there")
    return [read_tile(tile, day) for tile in TOP for day in ("20230813", "20230815", "20230820")]
