"""A configuration comes whole from its file, with its defaults and overrides."""

from __future__ import annotations

import datetime as dt
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from configs import written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import ConfigError


def test_a_minimal_config_gets_the_defaults(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config.name == "config"
    assert (config.grid.chip_px, config.grid.overlap_px, config.grid.shard_px, config.grid.chunk_px) == (
        192,
        24,
        2048,
        256,
    )
    assert (config.model.preset, config.model.sampler_steps, config.model.consistency) == ("small", None, True)
    assert (config.scenes.max_scenes, config.scenes.min_clear_share, config.scenes.allow_cloudy) == (3, 0.0, True)
    assert (config.source.collection, config.source.max_cloud_cover) == ("sentinel-2-l2a", 100)
    assert (config.compute.gpus_per_actor, config.compute.actors_max, config.compute.precision) == (
        "auto",
        None,
        "float32",
    )
    assert config.period.start == dt.date(2020, 2, 1)


def test_a_section_with_everything_commented_out_has_the_defaults(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, compute=None, scenes=None)) == load_config(written(tmp_path))


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(
        written(
            tmp_path,
            area={"geojson": "a.geojson"},
            model={"preset": "published", "stage1": "w/a.ckpt", "fusion": "s3://w/b"},
        )
    )
    assert config.area.geojson == str(tmp_path / "a.geojson")
    assert config.source.static_catalog == str(tmp_path / "archive/catalog.json")
    assert (config.model.stage1, config.model.fusion) == (str(tmp_path / "w/a.ckpt"), "s3://w/b")
    assert config.store.url == str(tmp_path / "out/cube.zarr")


def test_last_month_is_reckoned_from_the_clock(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC).date()
    assert load_config(written(tmp_path, period="last-month")).period.end in (
        now.replace(day=1) - dt.timedelta(days=1),
        (now + dt.timedelta(days=1)).replace(day=1) - dt.timedelta(days=1),
    )


def test_the_period_of_a_file_is_replaced_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, period="last-month")
    assert load_config(file, {"period": "2023-06"}).period.label == "2023-06"
    assert load_config(written(tmp_path, period=2023)).period.label == "2023"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    section=st.sampled_from(sorted(RunConfig.model_fields)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=8,
    ),
)
def test_whatever_a_section_holds_the_answer_is_a_config_or_one_line(tmp_path: Path, section: str, value: Any) -> None:
    file = written(tmp_path, **{section: value})
    try:
        load_config(file)
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert message.startswith("config.yaml: ")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["local_archive", "country_month", "tiles_published"])
def test_the_examples_are_valid(name: str) -> None:
    with resources.as_file(resources.files("difffusr.pipeline.config.examples") / f"{name}.yaml") as file:
        load_config(file)
        text = file.read_text()
    assert len(re.findall(r"(?m)^\s*#", text)) >= 4, "an example explains itself"
