"""A YAML file holds one mapping; overrides replace what it says, key by key."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from configs import refused, written
from pydantic import Field

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.reading import merge_overrides, validated
from difffusr.pipeline.config.section import Section
from difffusr.pipeline.ground.errors import ConfigError


def test_overrides_are_nested_or_dotted(tmp_path: Path) -> None:
    file = written(tmp_path, compute={"batch": 2, "actors_max": 3})
    config = load_config(file, {"compute.batch": "8", "period": {"end": "2020-02-10"}, "name": "test"})
    assert (config.compute.batch, config.compute.actors_max) == (8, 3)
    assert (config.period.start, config.period.end) == (dt.date(2020, 2, 1), dt.date(2020, 2, 10))
    assert config.name == "test"


def test_overriding_a_source_replaces_it(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), {"source.items": "items.json", "area.tiles": ["t48que", "1WCR"]})
    assert config.source.static_catalog is None
    assert config.source.items == str(tmp_path / "items.json")
    assert config.area.tiles == ("48QUE", "01WCR")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("area:\n  bbox: [1, 2\nperiod: {}\n", "config.yaml: line 3, column"),
        ("name: a\nname: b\n", "config.yaml: line 2, column 1: not valid YAML: key 'name' is given twice"),
        ("", "config.yaml: found nothing, expected the sections name, area, period"),
        ("- a\n", "config.yaml: found a list, expected the sections"),
        ("name: !!python/object/apply:os.getcwd []\n", "config.yaml: line 1"),
        ("a: 1\nb: \x00", "config.yaml: line 2, column 4: not valid YAML: the character '\\x00' is not allowed"),
        ("a: ä\nb: x\x07", "config.yaml: line 2, column 5: not valid YAML: the character '\\x07' is not allowed"),
        ("a: !!timestamp 2023-02-30\n", "config.yaml: line 1, column 4: not valid YAML: '2023-02-30' is no timestamp"),
        ("a: 1\nb: !!bool often\n", "config.yaml: line 2, column 4: not valid YAML: 'often' is no bool"),
        ("a: 1\nb: !!int many\n", "config.yaml: line 2, column 4: not valid YAML: 'many' is no int"),
        ("a: 1\nb: 0x_\n", "config.yaml: line 2, column 4: not valid YAML: '0x_' is no int"),
        ("a: 1\nb: !!map often\n", "config.yaml: line 2, column 4: not valid YAML: expected a mapping"),
        ("a: 1\nb: !!float ''\n", "config.yaml: line 2, column 4: not valid YAML: '' is no float"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused(tmp_path, text)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "no.yaml")


class Part(Section):
    first: int = Field(default=1, description="an integer")
    options: dict[str, int] = Field(default_factory=dict, description="a mapping")


class Whole(Section):
    one_of = ("path", "url")
    path: str | None = Field(default=None, description="a path")
    url: str | None = Field(default=None, description="a URL")
    part: Part = Field(default_factory=Part, description="a section with first")
    parts: tuple[Part, ...] = Field(default=(), strict=False, description="a list of sections")


def test_any_model_is_overridden_section_by_section() -> None:
    data = {"path": "a", "part": {"first": 2, "options": {"x": 1}}}
    merged = merge_overrides(data, {"part.options": {"y": 2}, "url": "http://b"}, Whole)
    assert merged == {"part": {"first": 2, "options": {"y": 2}}, "url": "http://b"}
    assert data == {"path": "a", "part": {"first": 2, "options": {"x": 1}}}, "what was given stays as it was"
    assert merge_overrides({"part": None}, {"part": {"first": 3}}, Whole) == {"part": {"first": 3}}


def test_any_model_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "whole.yaml"
    assert validated(Whole, {"path": "a", "part": None}, file).part.first == 1
    with pytest.raises(ConfigError) as caught:
        validated(Whole, {"part": {"frist": 1}, "parts": [{}, {"first": "x"}]}, file)
    assert str(caught.value) == (
        "whole.yaml: part.frist: unknown key, did you mean 'first'? (allowed: first, options); "  # a file without lines
        "parts[1].first: found 'x', expected an integer"
    )
    with pytest.raises(ConfigError, match=r"^whole.yaml: found none, expected exactly one of path, url$"):
        validated(Whole, {}, file)
