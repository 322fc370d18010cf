"""What is wrong with a configuration is said in one line: key, value found, what is allowed."""

from __future__ import annotations

from pathlib import Path

from configs import refused


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
