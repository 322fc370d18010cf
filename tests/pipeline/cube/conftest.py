"""Where the cubes of these tests are."""

from __future__ import annotations

from pathlib import Path

import pytest

from difffusr.pipeline.storage.objects import Storage


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[Storage, Storage]:
    """A cube and its staging folder on a file system."""
    return Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "cube.staging"))
