"""A YAML file as a checked model: read, overridden, validated. Every error is one line that names file and key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from difffusr.pipeline.config.explaining import explain
from difffusr.pipeline.config.section import held_section
from difffusr.pipeline.ground.errors import ConfigError

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader of PyYAML, but a key given twice is refused, dates stay text, which the models judge with their
    key, and every value that cannot be what it is said to be is an error with a place."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises ConstructorError for a key given twice."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            text = str(key.value)
            if text in seen and text != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"key '{text}' is given twice", key.start_mark)
            seen.add(text)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node. Raises ConstructorError, too, where PyYAML's own constructors lose the place."""
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{str(node.value)[:100]!r} is no {kind}", node.start_mark
            ) from None


UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


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
    except yaml.reader.ReaderError as error:
        before = text[: error.position].splitlines(keepends=True) or [""]
        raise ConfigError(
            f"{file.name}: line {len(before)}, column {len(before[-1]) + 1}: not valid YAML: the character "
            f"{chr(error.character)!r} is not allowed"
        ) from None
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
        raise ConfigError(f"{file.name}: {explain(error, kind, _Lines.of(file))}") from None


class _Lines:
    """Where in a file each value stands."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root

    @classmethod
    def of(cls, file: Path) -> _Lines:
        """The lines of a file; of one that cannot be read, or that holds no YAML, none."""
        try:
            return cls(yaml.compose(file.read_text(encoding="utf-8"), Loader=UniqueKeyLoader))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return cls(None)

    def __call__(self, steps: Iterable[int | str], found: object) -> int | None:
        """The line of a value, from 1; None where the file has no such key, or another value there: an override's.

        Args:
            steps: keys and positions on the way to it; others (pydantic's own) are passed over.
            found: what is there.
        """
        node, place = self._root, None
        for step in steps:
            for key, below in _children(node):
                if key == step:
                    node, place = below, below.start_mark.line + 1
        return place if node is not None and _same(node, found) else None


def _children(node: yaml.Node | None) -> Iterator[tuple[int | str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)


def _same(node: yaml.Node, found: object) -> bool:
    """Whether a node holds a value. Groups always do: their keys say what is wrong."""
    if not isinstance(node, yaml.ScalarNode) or isinstance(found, Mapping):
        return True
    loader = UniqueKeyLoader("")
    try:
        value = loader.construct_object(node)
    except yaml.YAMLError:
        return False
    finally:
        loader.dispose()
    # A period's days may stand in its name: 2023-06-05_2023-07-04.
    return bool(value == found) or str(found) in str(value)
