"""The schema refuses what the loader refuses, as far as JSON schema can, and takes what the loader takes."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from beside import ROOT
from configs import refused, written
from jsonschema import Draft202012Validator
from wrong_files import NO_DATA, RIGHT, WRONG, Wrong

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.reading import UniqueKeyLoader
from difffusr.pipeline.config.schema import MODELINE, SCHEMA_FILE, config_schema, is_schema, schema_text, shipped_schema
from difffusr.pipeline.config.sections import RunConfig

EXAMPLES = ("local_archive", "country_month", "tiles_published")


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = config_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_the_loader_refuses_every_wrong_file(tmp_path: Path, case: Wrong) -> None:
    message = refused(tmp_path, case.text)
    assert case.what in message
    assert "SECRET" not in message


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_the_schema_refuses_it_or_the_table_says_why_it_cannot(validator: Draft202012Validator, case: Wrong) -> None:
    if case.only == NO_DATA:
        with pytest.raises(yaml.YAMLError):
            yaml.load(case.text, Loader=UniqueKeyLoader)
    else:
        assert validator.is_valid(yaml.load(case.text, Loader=UniqueKeyLoader)) == bool(case.only)


@pytest.mark.parametrize("sections", RIGHT, ids=str)
def test_both_take_what_is_right(tmp_path: Path, validator: Draft202012Validator, sections: dict[str, Any]) -> None:
    file = written(tmp_path, **sections)
    load_config(file)
    assert [error.message for error in validator.iter_errors(yaml.load(file.read_text(), Loader=UniqueKeyLoader))] == []


def example(name: str) -> str:
    return (resources.files("difffusr.pipeline.config.examples") / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_valid_and_name_the_schema_beside_them(validator: Draft202012Validator, name: str) -> None:
    text = example(name)
    assert list(validator.iter_errors(yaml.load(text, Loader=UniqueKeyLoader))) == []
    assert text.startswith(f"{MODELINE}\n")
    assert MODELINE.endswith(f"$schema={SCHEMA_FILE}")
    assert (resources.files("difffusr.pipeline.config.examples") / SCHEMA_FILE).is_file()


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_commented_out_in_an_example_is_valid_too(validator: Draft202012Validator, name: str) -> None:
    sections = re.findall(r"(?m)^# [a-z]+:(?: .*)?$(?:\n#   .*)*", example(name).removeprefix(MODELINE))
    off = yaml.safe_load("\n".join(line[2:] for section in sections for line in section.splitlines()))
    data = yaml.load(example(name), Loader=UniqueKeyLoader) | (off or {})
    assert set(off or {}) >= ({"costs", "budget", "derived", "notify"} if name == "country_month" else set())
    assert list(validator.iter_errors(data)) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "infra").rglob("run*.yaml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_runs_of_clusters_are_valid(validator: Draft202012Validator, path: Path) -> None:
    assert list(validator.iter_errors(yaml.load(path.read_text(), Loader=UniqueKeyLoader))) == []


def test_the_file_that_ships_is_what_the_command_prints() -> None:
    assert shipped_schema() == schema_text(), (
        "`difffusr schema pipeline/config/examples/difffusr.schema.json` renews it"
    )


def test_every_key_says_what_is_allowed() -> None:
    schema = config_schema()
    assert (schema["$schema"], schema["$id"][:4]) == ("https://json-schema.org/draft/2020-12/schema", "urn:")
    places = {"": schema, **schema["$defs"], "PeriodSection": schema["$defs"]["PeriodSection"]["anyOf"][0]}
    for place, section in places.items():
        for key, value in section.get("properties", {}).items():
            assert value.get("description"), f"{place}.{key}"
    assert set(schema["properties"]) == set(RunConfig.model_fields)


def test_values_to_choose_from_and_bounds_are_said() -> None:
    definitions = config_schema()["$defs"]
    model, compute = definitions["ModelSection"]["properties"], definitions["ComputeSection"]["properties"]
    assert model["preset"]["enum"] == ["small", "published"]
    assert model["sampler"]["anyOf"][0]["enum"] == ["reference", "fast", "draft"]
    assert (model["temperature"]["anyOf"][0]["minimum"], model["temperature"]["anyOf"][0]["maximum"]) == (0, 2)
    assert compute["actors_max"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    assert model["preset"]["default"] == "small"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"$id": "https://else.where/schema"}'])
def test_another_file_is_not_taken_for_a_schema_of_ours(text: str) -> None:
    assert not is_schema(text)
    assert is_schema(json.dumps(config_schema()))
