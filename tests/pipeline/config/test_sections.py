"""A section is either understood whole or refused in one line that names the key."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from configs import refused, written
from odd_names import ODD_NAMES
from pydantic import ValidationError

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.config.sections import RunConfig


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    with pytest.raises(ValidationError):
        config.model.seed = 1  # type: ignore[misc]


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


@labelled
def test_a_period_has_a_name_that_sorts(tmp_path: Path, start: str, end: str, label: str) -> None:
    assert load_config(written(tmp_path, period={"start": start, "end": end})).period.label == label


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
        (
            {"source": {"items": "a", "unsigned": "my-bucket"}},
            "source.unsigned: found 'my-bucket', expected a list of S3 buckets",
        ),
        (
            {"source": {"items": "a", "unsigned": ["my-bucket", "s3://other"]}},
            "source.unsigned.1: found 's3://other', expected the name of a bucket such as sentinel-cogs",
        ),
        ({"source": {"items": "a", "unsigned": ["a,b"]}}, "source.unsigned.0: found 'a,b', expected the name of a"),
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
    other = {"skip", "derived", "notify", "deadline"}  # skip is off: as before there was a choice
    assert set(data) == set(RunConfig.model_fields) - other
    assert "storage_options" not in data["store"]
    assert data["period"] == {"start": "2020-02-01", "end": "2020-02-29"}


@pytest.mark.parametrize(
    "prices",
    [
        {},
        {"gpu_hour_spot": None},
        {"gpu_hour_spot": 0},
        {"cpu_hour_spot": 0.01},
        {"gpu_hour_spot": 1, "cpu_hour_spot": 2},
    ],
)
def test_prices_on_spot_are_in_the_canonical_form_only_where_they_are_given(tmp_path: Path, prices: Any) -> None:
    config = load_config(written(tmp_path, costs={"prices": prices}))
    said = {key: value for key, value in config.canonical()["costs"]["prices"].items() if key.endswith("_spot")}
    assert said == {key: value for key, value in prices.items() if value is not None}
    assert config.costs.prices.gpu_hour_spot == prices.get("gpu_hour_spot")


@pytest.mark.parametrize("key", ["gpu_hour_spot", "cpu_hour_spot"])
@pytest.mark.parametrize("value", [-1, "cheap", True, [1], float("nan"), float("inf")])
def test_prices_on_spot_are_prices(tmp_path: Path, key: str, value: Any) -> None:
    said = refused(tmp_path, costs={"prices": {key: value}})
    assert f"costs.prices.{key}" in said
    assert "expected a number ≥ 0" in said


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_configuration_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.mkdir()
    sections = {
        "area": {"geojson": "area #1?.geojson"},
        "source": {"items": "./items %20.json"},
        "store": {"url": "cube ü?#.zarr"},
        "model": {"preset": "published", "stage1": "a b.ckpt", "fusion": f"file://{quote(str(odd))}/b#.ckpt"},
    }
    config = load_config(written(odd, **sections))
    assert config.area.geojson == str(odd / "area #1?.geojson")
    assert config.source.items == str(odd / "items %20.json")
    assert config.store.url == str(odd / "cube ü?#.zarr")
    assert config.store.staging == str(odd / "cube ü?#.staging")
    assert (config.model.stage1, config.model.fusion) == (str(odd / "a b.ckpt"), str(odd / "b#.ckpt"))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"store": {"url": "C:\\cubes\\a.zarr"}}, "store.url: 'C:\\cubes\\a.zarr' is a path of Windows; "),
        ({"store": {"url": "s3:bucket/a.zarr"}}, "store.url: 's3:bucket/a.zarr' lacks // after its scheme; "),
        ({"store": {"url": "s3://"}}, "store.url: 's3://' has no bucket after s3://; "),
        ({"store": {"url": "icechunk+C:/a"}}, "store.url: 'C:/a' is a path of Windows; "),
        ({"source": {"items": "data\\items.json"}}, "source.items: 'data\\items.json' has backslashes; "),
        ({"source": {"items": "file://server/items.json"}}, "source.items: 'file://server/items.json' names another "),
        ({"source": {"stac_api": "https://host:port/"}}, "source.stac_api: 'https://host:port/' has no valid host "),
        ({"source": {"stac_api": "https:/host"}}, "source.stac_api: 'https:/host' lacks // after its scheme; "),
        ({"area": {"geojson": "a\0.geojson"}}, "area.geojson: 'a\\x00.geojson' holds a control character; "),
        ({"area": {"file": "\\\\server\\a.gpkg"}}, "area.file: '\\\\server\\a.gpkg' is a path of Windows; "),
    ],
)
def test_what_points_nowhere_is_refused_with_a_word(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    assert expected in refused(tmp_path, **sections)


def test_urls_are_kept_in_their_usual_form(tmp_path: Path) -> None:
    source = {"stac_api": "HTTPS://host.example/läuft nicht"}
    config = load_config(written(tmp_path, source=source, store={"url": "S3://bucket/nicht? #2/a.zarr/"}))
    assert config.source.stac_api == "https://host.example/l%C3%A4uft%20nicht"
    assert config.store.url == "s3://bucket/nicht? #2/a.zarr"
    assert config.store.staging == "s3://bucket/nicht? #2/a.staging"
