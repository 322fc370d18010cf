"""A run's configuration from its YAML file, with overrides put over it."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

from difffusr.pipeline.config.reading import merge_overrides, read_mapping, validated
from difffusr.pipeline.config.sections import RunConfig


def load_config(path: str | Path, overrides: dict[str, Any] | None = None, today: dt.date | None = None) -> RunConfig:
    """The configuration in a YAML file, checked.

    Args:
        overrides: values that replace the file's: nested (`{"period": {…}}`) or dotted (`{"period.start": …}`).
            Overriding one key of `area` or `source` drops the other choices of that section.
        today: the day that `period: last-month` is counted from; by default the current one in UTC.

    Relative paths, those of overrides too, are relative to the file's folder.

    Raises:
        ConfigError: one line that names every wrong key, the value found and what is allowed.
    """
    file = Path(path).expanduser()
    data = read_mapping(file, f"the sections {', '.join(RunConfig.model_fields)}")
    data = merge_overrides(data, overrides or {}, RunConfig)
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._") or "run")
    return validated(RunConfig, data, file, today=today)


def configured(data: dict[str, Any]) -> RunConfig:
    """The configuration that a command's options stand for, checked; relative paths are relative to this folder.

    Raises:
        ConfigError: as `load_config`.
    """
    return validated(RunConfig, data, Path.cwd() / "options")
