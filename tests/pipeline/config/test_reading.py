"""A YAML file holds one mapping; overrides replace what it says, key by key."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from configs import refused, written

from difffusr.pipeline.config.loading import load_config
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
        ("a: \x00", "config.yaml: not valid YAML"),
        ("period: {start: 2023-02-30}\n", "config.yaml: not valid YAML: day"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refused(tmp_path, text)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "no.yaml")
