"""The JSON schema of a run's configuration, for editors and for checks without this package.

It is made from the sections; what is written here are the rules between keys. What only the loader can tell (two values
compared, files that must exist) is not in it.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from difffusr.pipeline.config import patterns
from difffusr.pipeline.config.section import Section, held_section
from difffusr.pipeline.config.sections import RunConfig

#: Name of the schema's file: it lies beside the examples, and beside what `init` writes.
SCHEMA_FILE = "difffusr.schema.json"

#: First line of a configuration, by which editors find the schema.
MODELINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"

_ID = "urn:difffusr:run-configuration"

_NULL = {"type": "null"}


def schema_text() -> str:
    """The schema as the file `SCHEMA_FILE` has it."""
    return json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"


def shipped_schema() -> str:
    """That file's content, as it ships beside the examples."""
    return (files("difffusr.pipeline.config.examples") / SCHEMA_FILE).read_text(encoding="utf-8")


def config_schema() -> dict[str, Any]:
    """The schema, draft 2020-12. It takes what a file says: without `name` the file's name is the run's, and a section
    whose lines are all commented out has its defaults."""
    made = RunConfig.model_json_schema(schema_generator=_Generator)
    made["required"].remove("name")
    for key, value in made["properties"].items():
        if key not in made["required"] and held_section(RunConfig, key):
            reference = value.pop("$ref")
            made["properties"][key] = {"anyOf": [{"$ref": reference}, _NULL], **value}
    made["$defs"]["PeriodSection"] = _named_periods(made["$defs"]["PeriodSection"])
    tidy = _tidy(made)
    tidy["$defs"] |= _ONCE
    return {"$schema": GenerateJsonSchema.schema_dialect, "$id": _ID, **tidy, "title": "A run of DiffFuSR"}


class _Generator(GenerateJsonSchema):
    """Pydantic's, with the rules between keys of a section."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        kind = schema["cls"]
        if issubclass(kind, Section) and kind.one_of:
            made["oneOf"] = [_given(key) for key in kind.one_of]
        if rules := _RULES.get(kind.__name__):
            made["allOf"] = rules
        return made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Without the default of a section: that of each of its keys says it."""
        made = super().default_schema(schema)
        if isinstance(made.get("default"), dict) or made.get("default") in ("", []):
            del made["default"]
        return made


def _named_periods(dated: dict[str, Any]) -> dict[str, Any]:
    """The section `period`, which may be a name instead."""
    described = dated.pop("description")
    return {"description": described, "anyOf": [dated, *patterns.PERIOD_NAME]}


#: What pydantic calls bounds of a value that may also be null, and what JSON schema calls them.
_BOUNDS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "multiple_of": "multipleOf",
}  # fmt: skip


#: What is written once, by its name in `$defs`.
_ONCE = {
    "HookUrl": patterns.HOOK_URL, "HttpUrl": patterns.HTTP_URL, "StorageUrl": patterns.STORAGE_URL,
    "PathOrUrl": patterns.PATH_OR_URL,
}  # fmt: skip


def _tidy(value: Any) -> Any:
    """Without titles, which repeat keys, and with bounds by their names; long patterns once. Keys of sections stay what
    they are."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {_BOUNDS.get(key, key): item for key, item in value.items() if key != "title"}
    for name, written in _ONCE.items():
        if written.items() <= kept.items():
            others = {key: item for key, item in kept.items() if key not in written}
            kept = {"$ref": f"#/$defs/{name}", **others}
    return {
        key: {name: _tidy(inner) for name, inner in item.items()} if key in ("properties", "$defs") else _tidy(item)
        for key, item in kept.items()
    }


# ---- rules between keys ---------------------------------------------------------------------------------------------


def _given(*keys: str) -> dict[str, Any]:
    """These keys are there, and not null."""
    return {"properties": {key: {"not": _NULL} for key in keys}, "required": list(keys)}


def _absent(*keys: str) -> dict[str, Any]:
    """These keys are null or not there."""
    return {"properties": {key: _NULL for key in keys}}


def _is(key: str, value: dict[str, Any]) -> dict[str, Any]:
    """This key is there, with such a value."""
    return {"properties": {key: value}, "required": [key]}


def _when(condition: dict[str, Any], then: dict[str, Any], otherwise: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"if": condition, "then": then} | ({} if otherwise is None else {"else": otherwise})


_DIVISORS = [steps for steps in range(2, 1001) if 1000 % steps == 0]

_OF_A_CUBE = _is("source", {"type": "object", **_given("cube")})

#: By the section's class. Bounds that depend on other keys' values are the loader's alone.
_RULES: dict[str, list[dict[str, Any]]] = {
    "AreaSection": [
        _when({"anyOf": [_given("layer"), _given("where")]}, _given("file")),
        {"properties": {"bbox": {"prefixItems": [{"minimum": -low, "maximum": low} for low in (180, 90, 180, 90)]}}},
    ],
    "ModelSection": [
        _when(
            _is("sampler", {"const": "draft"}),
            {"properties": {"sampler_steps": _NULL, "temperature": _NULL, "uncertainty_samples": {"const": 0}}},
        ),
        _when(
            _is("sampler", {"const": "fast"}),
            {"properties": {"sampler_steps": {"maximum": 50}}},
            {"properties": {"sampler_steps": {"enum": [None, *_DIVISORS]}}},
        ),
        {"properties": {"uncertainty_samples": {"not": {"const": 1}}}},
        _when(_is("preset", {"const": "published"}), _given("stage1", "fusion")),
    ],
    "StoreSection": [{"properties": {"staging": {"not": {"type": "string", "pattern": r"^icechunk\+"}}}}],
    "ComputeSection": [
        {
            "properties": {
                "gpus_per_actor": {
                    "anyOf": [{"const": "auto"}, {"minimum": 0, "maximum": 1}, {"type": "integer", "minimum": 0}]
                }
            }
        },
        _when(
            _is("wait_minutes", {"exclusiveMinimum": 0}),
            {**_is("gpus_per_actor", {"type": "number"}), "allOf": [_given("actors_max")]},
        ),
    ],
    "NotifySection": [
        {"not": _given("url", "url_env")},
        _when(_given("secret_env"), {"anyOf": [_given("url"), _given("url_env")]}),
    ],
    "RunConfig": [
        _when(
            _given("budget"),
            {"anyOf": [_is("costs", {"type": "object", **_given("calibration")}), _OF_A_CUBE]},
        ),
        _when(
            _OF_A_CUBE,
            {
                **_is("grid", {"type": "object", **_given("crs")}),
                "allOf": [{"properties": {"derived": {"maxItems": 0}}}],
            },
            {"properties": {"grid": _absent("crs", "resolution")}},
        ),
    ],
}


def is_schema(text: str) -> bool:
    """Whether a text is a schema of a run's configuration, of this version or another."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("$id") == _ID
