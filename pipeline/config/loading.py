"""A configuration from its YAML file, with overrides put over it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from difffusr.pipeline.config.explaining import explain
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.config.values import CHOICES
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.ground.urls import one_line


def load_config(path: str | Path, overrides: dict[str, Any] | None = None, today: dt.date | None = None) -> RunConfig:
    """The configuration in a YAML file, checked.

    `overrides` replaces values after the file is read: nested (`{"period": {"start": …}}`) or dotted
    (`{"period.start": …}`). Overriding one key of `area` or `source` drops the other choices of that section.
    Relative paths, those of overrides too, are resolved against the file's folder. `today` is the day that
    `period: last-month` is reckoned from, by default the current one in UTC.

    Raises ConfigError with one line naming every wrong key, the value found and what is allowed.
    """
    file = Path(path).expanduser()
    data = _merge(_read_yaml(file), overrides or {})
    # A section whose lines are all commented out is an empty one.
    data = {key: {} if value is None and key not in ("name", "budget") else value for key, value in data.items()}
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._") or "run")
    try:
        return RunConfig.model_validate(data, context={"folder": file.resolve().parent, "today": today})
    except ValidationError as error:
        raise ConfigError(f"{file.name}: {explain(error)}") from None


class UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader of PyYAML, which also refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            text = str(key.value)
            if text in seen and text != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key '{text}' is given twice", key.start_mark)
            seen.add(text)
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError with the line of a syntax error."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: cannot be read: not UTF-8 text") from None
    try:
        data = yaml.load(text, Loader=UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{file.name}: {where}not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{file.name}: not valid YAML: {one_line(error, None)}") from None
    except RecursionError:
        raise ConfigError(f"{file.name}: not valid YAML: nested too deeply") from None
    if not isinstance(data, dict):
        what = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{file.name}: found {what}, expected the sections {', '.join(RunConfig.model_fields)}")
    return data


def _merge(base: Mapping[str, Any], overrides: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """`base` with `overrides` put over it, nested mappings merged key by key."""
    merged = dict(base)
    for name, value in overrides.items():
        key, _, rest = name.partition(".")
        if rest:
            value = {rest: value}
        inside = merged.get(key)
        if isinstance(value, Mapping) and not (section and key == "storage_options"):
            value = _merge(inside if isinstance(inside, Mapping) else {}, value, key)
        if value is not None and key in CHOICES.get(section, ()):
            merged = {k: v for k, v in merged.items() if k not in CHOICES[section]}
        merged[key] = value
    return merged
