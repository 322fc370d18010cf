"""What an API server says of a custom resource by its CRD, and more: a field that it would drop unsaid is an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_INTEGERS = {"int32": 2**31, "int64": 2**63}


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema of a CRD as a JSON schema that allows no field which the schema does not name."""
    out = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if "properties" in schema:
        out["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
    if isinstance(schema.get("items"), Mapping):
        out["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), Mapping):
        out["additionalProperties"] = strict(schema["additionalProperties"])
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    if limit := _INTEGERS.get(schema.get("format", "")):
        out.setdefault("minimum", -limit)
        out.setdefault("maximum", limit - 1)
    return out


@lru_cache
def _versions(crd: Path) -> dict[str, dict[str, Any]]:
    """Of a CRD's file: the OpenAPI schema of each version that is served."""
    definition = yaml.load(crd.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    served = [version for version in definition["spec"]["versions"] if version["served"]]
    return {version["name"]: version["schema"]["openAPIV3Schema"] for version in served}


@lru_cache
def schema_of(crd: Path, version: str) -> dict[str, Any]:
    """The schema of one version as the CRD's file has it."""
    return _versions(crd)[version]


@lru_cache
def _validator(crd: Path, version: str) -> Draft202012Validator:
    schema = strict(schema_of(crd, version))
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}  # the API server's own
    return Draft202012Validator({**schema, "required": ["apiVersion", "kind", "metadata", "spec"]})


def faults(thing: Mapping[str, Any], crds: Path) -> list[str]:
    """What is wrong with a custom resource: place and message of each fault, sorted."""
    crd = crds / f"ray.io_{thing['kind'].lower()}s.yaml"
    version = thing["apiVersion"].removeprefix("ray.io/")
    found = [f"{error.json_path}: {error.message}" for error in _validator(crd, version).iter_errors(thing)]
    return sorted([*found, *_twice(thing, schema_of(crd, version), "$")])


def faults_of_part(part: Any, schema: Mapping[str, Any]) -> list[str]:
    """As `faults`, of a part of an object by its part of a schema."""
    return sorted(
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(strict(schema)).iter_errors(part)
    )


def _twice(thing: Any, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    """Entries of a list that is keyed (`x-kubernetes-list-map-keys`) which have the same key."""
    if isinstance(thing, Mapping):
        for name, value in thing.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(inner, Mapping):
                yield from _twice(value, inner, f"{place}.{name}")
    elif isinstance(thing, list):
        keys = schema.get("x-kubernetes-list-map-keys", ())
        seen: set[tuple[str, ...]] = set()
        for number, value in enumerate(thing):
            if keys and isinstance(value, Mapping):
                key = tuple(str(value.get(k, schema["items"]["properties"][k].get("default"))) for k in keys)
                if key in seen:
                    yield f"{place}[{number}]: {dict(zip(keys, key, strict=True))} is given twice"
                seen.add(key)
            yield from _twice(value, schema.get("items", {}), f"{place}[{number}]")
