"""A YAML file as a checked model: read, overridden, validated. Every error is one line that names file and key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from difffusr.pipeline.config.explaining import explain
from difffusr.pipeline.config.section import held_section
from difffusr.pipeline.ground.errors import ConfigError

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader of PyYAML, which also refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises ConstructorError for a key given twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            text = str(key.value)
            if text in seen and text != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key '{text}' is given twice", key.start_mark)
            seen.add(text)
        return super().construct_mapping(node, deep)


def read_mapping(file: Path, expected: str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Args:
        expected: what the mapping holds, for the message about a file that holds something else.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML (with line and column), or holds no mapping.
    """
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
        raise ConfigError(f"{file.name}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{file.name}: not valid YAML: nested too deeply") from None
    if not isinstance(data, dict):
        what = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{file.name}: found {what}, expected {expected}")
    return data


def merge_overrides(
    data: Mapping[str, Any], overrides: Mapping[str, Any], kind: type[BaseModel] | None
) -> dict[str, Any]:
    """`data` with `overrides` put over it, sections key by key, other values whole.

    Args:
        data: what a file says.
        overrides: nested (`{"period": {"start": …}}`) or dotted (`{"period.start": …}`). One of the keys in a section's
            `one_of` drops the others.
        kind: the model that `data` is meant for.
    """
    merged = dict(data)
    one_of = getattr(kind, "one_of", ())
    for name, value in overrides.items():
        key, _, rest = name.partition(".")
        if rest:
            value = {rest: value}
        section = held_section(kind, key) if kind else None
        if section is not None and isinstance(value, Mapping):
            inside = merged.get(key)
            value = merge_overrides(inside if isinstance(inside, Mapping) else {}, value, section)
        if value is not None and key in one_of:
            merged = {k: v for k, v in merged.items() if k not in one_of}
        merged[key] = value
    return merged


def validated(kind: type[AnyModel], data: Mapping[str, Any], file: Path, **context: object) -> AnyModel:
    """A model of what a file says. A section without a value, all its lines commented out, is an empty one.

    Args:
        file: where the data come from: relative paths are relative to its folder, messages begin with its name.
        context: what validators may need besides, by name.

    Raises:
        ConfigError: one line that names every wrong key, the value found and what is allowed.
    """
    filled = {key: {} if value is None and held_section(kind, str(key)) else value for key, value in data.items()}
    try:
        return kind.model_validate(filled, context={"folder": file.resolve().parent, **context})
    except ValidationError as error:
        raise ConfigError(f"{file.name}: {explain(error, kind)}") from None
