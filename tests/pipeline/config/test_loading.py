"""A configuration is either understood whole or refused in one line that names the key."""

from __future__ import annotations

import datetime as dt
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "area": {"bbox": [103.7, 17.87, 103.76, 17.97]},
    "period": {"start": "2020-02-01", "end": "2020-02-29"},
    "source": {"static_catalog": "archive/catalog.json"},
    "store": {"url": "out/cube.zarr"},
}


def written(folder: Path, text: str | None = None, **sections: Any) -> Path:
    """A config file with the minimal sections, some of them replaced, or with just this text."""
    file = folder / "config.yaml"
    file.write_text(text if text is not None else yaml.safe_dump({**MINIMAL, **sections}))
    return file


def refused(folder: Path, text: str | None = None, **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, text, **sections))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


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


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    with pytest.raises(ValidationError):
        config.model.seed = 1  # type: ignore[misc]


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


@pytest.mark.parametrize(
    ("url", "staging"),
    [
        ("s3://bucket/cube.zarr", "s3://bucket/cube.staging"),
        ("s3://bucket/cube.zarr/", "s3://bucket/cube.staging"),
        ("s3://bucket/cube", "s3://bucket/cube.staging"),
        ("/data/cube.zarr", "/data/cube.staging"),
    ],
)
def test_staging_lies_beside_the_cube(tmp_path: Path, url: str, staging: str) -> None:
    assert load_config(written(tmp_path, store={"url": url})).store.staging == staging


labelled = pytest.mark.parametrize(
    ("start", "end", "label"),
    [
        ("2023-06-01", "2023-06-30", "2023-06"),
        ("2023-01-01", "2023-12-31", "2023"),
        ("2022-12-01", "2023-02-28", "2022-12-01_2023-02-28"),
        ("2023-06-05", "2023-06-05", "2023-06-05_2023-06-05"),
    ],
)


@labelled
def test_a_period_is_found_by_its_name(tmp_path: Path, start: str, end: str, label: str) -> None:
    named, dated = (
        load_config(written(tmp_path, period=period)).period for period in (label, {"start": start, "end": end})
    )
    assert named == dated


@pytest.mark.parametrize(
    ("today", "label"),
    [
        ("2026-11-05", "2026-10"),
        ("2026-11-30", "2026-10"),
        ("2026-01-01", "2025-12"),
        ("2024-03-31", "2024-02"),
    ],
)
def test_last_month_is_the_whole_month_before_the_current_one(tmp_path: Path, today: str, label: str) -> None:
    file = written(tmp_path, period="last-month")
    assert load_config(file, today=dt.date.fromisoformat(today)).period.label == label


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


@labelled
def test_a_period_has_a_name_that_sorts(tmp_path: Path, start: str, end: str, label: str) -> None:
    assert load_config(written(tmp_path, period={"start": start, "end": end})).period.label == label


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


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_wrong_type_names_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, compute={"batch": "four"})
        == "config.yaml: compute.batch: found 'four', expected an integer ≥ 1, or 'auto' (found on a GPU, 1 on CPUs)"
    )


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    message = refused(tmp_path, stor={"url": "x"})
    assert message.startswith("config.yaml: stor: unknown key, did you mean 'store'? (allowed: name, area, ")
    message = refused(tmp_path, grid={"overlp_px": 24})
    assert message.startswith("config.yaml: grid.overlp_px: unknown key, did you mean 'overlap_px'?")
    assert "did you mean" not in refused(tmp_path, xyzzy=1)


def test_missing_sections_are_all_named_in_one_line(tmp_path: Path) -> None:
    message = refused(tmp_path, "name: x\narea: {bbox: [1, 2, 3, 4]}\nstore: {}\n")
    assert message == (
        "config.yaml: period: missing, expected a section with start and end, a month such as 2023-06, a year such as "
        "2023, or last-month; "
        "source: missing, expected a section with one of stac_api, static_catalog, items; "
        "store.url: missing, expected a path or URL such as s3://bucket/cube.zarr"
    )


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"source": {"stac_api": "https://a/v1", "items": "b.json"}},
            "source: found stac_api and items, expected exactly one",
        ),
        (
            {"source": {"collection": "x"}},
            "source: found none, expected exactly one of stac_api, static_catalog, items",
        ),
        ({"source": {"stac_api": "earth-search"}}, "source.stac_api: found 'earth-search', expected the http(s) URL"),
        (
            {"source": {"items": "a", "max_cloud_cover": 120}},
            "source.max_cloud_cover: found 120, expected a number from 0 to",
        ),
        ({"area": {}}, "area: found none, expected exactly one of geojson, file, bbox, tiles"),
        (
            {"area": {"bbox": [10, 50, 5, 55]}},
            "area.bbox: found [10.0, 50.0, 5.0, 55.0], expected [west, south, east, north]",
        ),
        ({"area": {"bbox": [10, 50, 15]}}, "area.bbox: found [10, 50, 15], expected [west"),
        ({"area": {"bbox": [10, 55, 15, 50]}}, "area.bbox: found"),
        ({"area": {"bbox": [10, 50, float("nan"), 55]}}, "area.bbox"),
        (
            {"area": {"tiles": ["48QUE", "99ZZZ"]}},
            "area.tiles.1: found '99ZZZ', expected an MGRS tile id such as 48QUE",
        ),
        ({"area": {"tiles": [5]}}, "area.tiles.0: found 5, expected an MGRS tile id such as 48QUE"),
        ({"area": {"tiles": []}}, "area.tiles: found [], expected a list of MGRS tile ids"),
        ({"area": 7}, "area: found 7, expected a section with one of geojson, file, bbox, tiles"),
        (
            {"period": {"start": "2023-06-30", "end": "2023-06-01"}},
            "period.end: found '2023-06-01', expected a date not before",
        ),
        ({"period": {"start": "June", "end": "2023-06-01"}}, "period.start: found 'June', expected a date such as"),
        ({"period": "2023-13"}, "period: found '2023-13', expected a section with start and end, a month such as"),
        ({"period": "next-month"}, "period: found 'next-month', expected a section with start and end, a month"),
        ({"period": True}, "period: found true, expected a section with start and end, a month"),
        (
            {"period": "2023-07-04_2023-06-05"},
            "period.end: found '2023-06-05', expected a date not before period.start = 2023-07-04",
        ),
        (
            {"compute": {"wait_minutes": 20, "actors_max": 4}},
            "compute.wait_minutes: found 20.0, expected 0, or compute.gpus_per_actor and compute.actors_max as numbers",
        ),
        (
            {"compute": {"wait_minutes": 20, "gpus_per_actor": 1}},
            "compute.wait_minutes: found 20.0, expected 0, or compute.gpus_per_actor and compute.actors_max as numbers",
        ),
        ({"grid": {"chip_px": 200}}, "grid.chip_px: found 200, expected a positive multiple of 6"),
        ({"grid": {"chip_px": 0}}, "grid.chip_px: found 0, expected a positive multiple of 6"),
        (
            {"grid": {"overlap_px": 0}},
            "grid.overlap_px: found 0, expected a positive multiple of 6, less than chip_px / 2",
        ),
        ({"grid": {"overlap_px": 20}}, "grid.overlap_px: found 20, expected a positive multiple of 6"),
        ({"grid": {"overlap_px": 96}}, "grid.overlap_px: found 96, expected less than half of grid.chip_px = 192"),
        ({"grid": {"shard_px": 2000}}, "grid.shard_px: found 2000, expected a multiple of grid.chunk_px = 256"),
        ({"model": {"preset": "large"}}, "model.preset: found 'large', expected 'small' or 'published'"),
        (
            {"model": {"preset": "published", "stage1": "a"}},
            "model.fusion: found null, expected the path or URL of the weights",
        ),
        (
            {"model": {"sampler_steps": 30}},
            "model.sampler_steps: found 30, expected an integer from 2 that divides 1000",
        ),
        ({"model": {"seed": -1}}, "model.seed: found -1, expected an integer from 0 to 2^63 - 1"),
        ({"model": {"seed": True}}, "model.seed: found true"),
        ({"model": {"consistency": "maybe"}}, "model.consistency: found 'maybe', expected true or false"),
        ({"scenes": {"min_clear_share": 5}}, "scenes.min_clear_share: found 5, expected a number from 0 to 1"),
        ({"store": {"url": "s4://b/c.zarr"}}, "store.url: found 's4://b/c.zarr', expected a path or URL"),
        ({"store": {"url": "a.zarr", "staging": "a.zarr/tmp"}}, "store.staging: found"),
        ({"store": {"url": "a.zarr", "storage_options": [1]}}, "store.storage_options: found a value not shown"),
        (
            {"compute": {"actors_min": 3, "actors_max": 2}},
            "compute.actors_max: found 2, expected an integer ≥ compute.actors_min = 3",
        ),
        ({"compute": {"gpus_per_actor": 1.5}}, "compute.gpus_per_actor: found 1.5, expected 'auto'"),
        ({"compute": {"gpus_per_actor": "all"}}, "compute.gpus_per_actor: found 'all', expected 'auto'"),
        ({"name": "../x"}, "name: found '../x', expected letters"),
    ],
)
def test_every_kind_of_error_is_one_line_with_its_key(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    message = refused(tmp_path, **sections)
    assert expected in message
    assert message.startswith("config.yaml: ")
    assert message.count("; ") == 0, "one mistake, one clause"


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


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    store = {"url": "s3://bucket/cube.zarr", "storage_options": {"key": "SECRET", "client_kwargs": {"token": "SECRET"}}}
    config = load_config(
        written(tmp_path, store=store, source={"items": "https://user:SECRET@host/items.json?sig=SECRET"})
    )
    assert config.store.storage_options["key"] == "SECRET"
    assert "SECRET" not in repr(config.store) + str(config.store)
    assert "SECRET" not in json.dumps(config.canonical())
    assert "SECRET" not in refused(tmp_path, store={"url": "s3://me:SECRET@bucket/cube.zarr"})
    assert "SECRET" not in refused(tmp_path, store={**store, "nonsense": 1})
    assert "SECRET" not in refused(tmp_path, store={"url": "a", "storage_options": "SECRET"})


def test_the_canonical_form_is_json_and_says_everything_else(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, store={"url": "cube.zarr", "storage_options": {"a": 1}}))
    data = json.loads(json.dumps(config.canonical()))
    assert set(data) == set(RunConfig.model_fields) - {"skip"}  # off: as before there was a choice
    assert "storage_options" not in data["store"]
    assert data["period"] == {"start": "2020-02-01", "end": "2020-02-29"}


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


# ---- examples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["local_archive", "country_month", "tiles_published"])
def test_the_examples_are_valid(name: str) -> None:
    with resources.as_file(resources.files("difffusr.pipeline.config.examples") / f"{name}.yaml") as file:
        load_config(file)
        text = file.read_text()
    assert len(re.findall(r"(?m)^\s*#", text)) >= 4, "an example explains itself"
