"""A configuration of a run that nobody starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig

CONTENT: dict[str, Any] = {
    "area": {"tiles": ["32TMT"]},
    "period": {"start": "2023-06-01", "end": "2023-06-30"},
    "source": {"static_catalog": "catalog.json"},
    "store": {"url": "cube.zarr"},
}


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., RunConfig]:
    """A configuration with some sections of its own, loaded."""

    def load(**sections: Any) -> RunConfig:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({**CONTENT, **sections}))
        return load_config(path)

    return load
