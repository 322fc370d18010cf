"""What an API server says of Kubernetes' own objects, by the schemas of kubernetes-validate; a field that it would drop
unsaid is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE = re.compile(rf"({_NAME})?")


def faults_of_core(thing: Mapping[str, Any]) -> list[str]:
    """What is wrong with an object of Kubernetes' own kinds: the message of the first fault, and its labels' faults."""
    schemas = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate, of difffusr[test]")
    found = faults_of_labels(thing)
    try:
        schemas.validate(dict(thing), schemas.latest_version(), strict=True)
    except schemas.ValidationError as error:
        found.append(f"{'.'.join(map(str, error.path))}: {error.message}")
    except schemas.SchemaNotFoundError as error:
        found.append(error.message)
    return found


def faults_of_labels(thing: Any) -> list[str]:
    """Labels and selectors, anywhere in an object, that no API server takes. The schemas say nothing of their form."""
    return [
        f"{key}: {value!r} is no label"
        for labels in _labels(thing)
        for key, value in labels.items()
        if not (isinstance(value, str) and _KEY.fullmatch(key) and _VALUE.fullmatch(value))
    ]


def _labels(thing: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(thing, Mapping):
        yield from (thing[name] for name in ("labels", "matchLabels") if isinstance(thing.get(name), Mapping))
        thing = list(thing.values())
    if isinstance(thing, list):
        for value in thing:
            yield from _labels(value)
