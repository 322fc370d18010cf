"""Configuration files for tests: minimal ones, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "area": {"bbox": [103.7, 17.87, 103.76, 17.97]},
    "period": {"start": "2020-02-01", "end": "2020-02-29"},
    "source": {"static_catalog": "archive/catalog.json"},
    "store": {"url": "out/cube.zarr"},
}


def written(folder: Path, text: str | None = None, **sections: Any) -> Path:
    """A config file with the minimal sections, some of them replaced, or with just this text."""
    file = folder / "config.yaml"
    file.write_text(text if text is not None else yaml.safe_dump({**MINIMAL, **sections}))
    return file


def refused(folder: Path, text: str | None = None, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, text, **sections))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)
