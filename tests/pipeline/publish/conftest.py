"""Where the cubes of these tests are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from difffusr.pipeline.storage.objects import Storage


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[Storage, Storage]:
    """A cube and its staging folder on a file system."""
    return Storage(str(tmp_path / "cube.zarr")), Storage(str(tmp_path / "cube.staging"))


@pytest.fixture
def on_s3(bucket: str, s3_options: dict[str, Any]) -> tuple[Storage, Storage]:
    """A cube and its staging folder in a bucket."""
    return Storage(f"s3://{bucket}/cube.zarr", s3_options), Storage(f"s3://{bucket}/cube.staging", s3_options)
