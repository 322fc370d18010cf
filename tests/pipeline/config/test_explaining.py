"""What is wrong with a configuration is said in one line: key, value found, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from configs import refused, written

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import ConfigError


def test_a_wrong_type_names_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, compute={"batch": "four"})
        == "config.yaml: compute.batch: found 'four', expected an integer ≥ 1, or 'auto' (found on a GPU, one a core "
        "on CPUs) (line 8)"
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


FILE = """\
# The run of a month.
area: {{bbox: [103.7, 17.87, 103.76, 17.97]}}
period:
  start: {start}   # the first day
  end: {end}
source: {{static_catalog: catalog.json}}
store: {{url: cube.zarr}}
"""


@pytest.mark.parametrize(
    "day", ["2024-06-31", "2024-13-01", "2024-02-30", "2023-2-29", "0000-01-01", "2024-00-10", "'2024-04-31'"]
)
@pytest.mark.parametrize(("key", "line"), [("start", 4), ("end", 5)])
def test_a_day_that_no_calendar_has_is_named_with_key_line_and_what_is_allowed(tmp_path, day, key, line):
    days = {"start": "2024-06-01", "end": "2024-06-30", key: day}
    expected = "2023-06-01" if key == "start" else "2023-06-30"
    assert refused(tmp_path, FILE.format(**days)) == (
        f"config.yaml: period.{key}: found '{day.strip(chr(39))}', expected a date such as {expected}: "
        f"there is no such day (line {line})"
    )


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("'31.06.2024'", "'31.06.2024'"),
        ("06/01/2024", "'06/01/2024'"),
        ("20240631", "20240631"),
        ("20304000", "20304000"),  # a whole number of days in seconds, which pydantic takes for a date of 1970
        ("2024", "2024"),
        ("true", "true"),
        ("", "null"),
        ("2024-06-01 12:00:00", "'2024-06-01 12:00:00'"),
        ("[2024-06-01]", "['2024-06-01']"),
    ],
)
def test_what_is_no_date_is_named_with_key_line_and_what_is_allowed(tmp_path, written, shown):
    message = refused(tmp_path, FILE.format(start=written, end="2024-06-30"))
    assert message == f"config.yaml: period.start: found {shown}, expected a date such as 2023-06-01 (line 4)"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-06-01", "2024-06-30"),
        ("2024-6-1", "2024-6-30"),
        ("'2024-06-01'", '"2024-06-30"'),
        ("2024-06-01T00:00:00Z", "2024-06-30"),
        ("!!str 2024-06-01", "&end 2024-06-30"),
    ],
)
def test_a_day_may_be_written_in_any_of_yaml_s_ways(tmp_path, start, end):
    assert load_config(written(tmp_path, FILE.format(start=start, end=end))).period.label == "2024-06"


def test_an_end_before_the_start_has_its_line(tmp_path):
    message = refused(tmp_path, FILE.format(start="2024-07-01", end="2024-06-01"))
    assert message.endswith(
        "period.end: found '2024-06-01', expected a date not before period.start = 2024-07-01 (line 5)"
    )


def test_every_wrong_value_has_the_line_on_which_it_stands(tmp_path):
    text = FILE.format(start="2024-06-01", end="2024-06-30") + (
        "grid:\n  chip_px: many\ncompute: {batch: four,\n  actors_mim: 1}\ncosts:\n  prices:\n    gpu_hour: -1\n"
    )
    message = refused(tmp_path, text)
    for key, line in (
        ("grid.chip_px", 9),
        ("compute.batch", 10),
        ("compute.actors_mim", 11),
        ("costs.prices.gpu_hour", 14),
    ):
        (clause,) = [part for part in message.removeprefix("config.yaml: ").split("; ") if part.startswith(f"{key}: ")]
        assert clause.endswith(f" (line {line})")


def test_a_value_that_replaces_the_file_s_has_no_line(tmp_path):
    file = written(tmp_path, FILE.format(start="2024-06-01", end="2024-06-30"))
    for overrides in ({"period.start": "2024-06-31"}, {"period": "2023-07-04_2023-06-05"}, {"compute.batch": "four"}):
        with pytest.raises(ConfigError) as caught:
            load_config(file, overrides)
        assert "(line" not in str(caught.value)
