"""The command writes one report, says what is missing from it, and fails in one line."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from small_cubes import EPSG, label

from difffusr.pipeline.readers.report.collect import collect_report
from difffusr.pipeline.readers.report.page import to_page
from difffusr.pipeline.storage.objects import Storage


def test_without_a_staging_folder_the_page_says_what_is_missing(cube, told, tmp_path):
    page = to_page(collect_report(cube, Storage(str(tmp_path / "gone")), None, [label(1)]))
    assert page.count("Missing from this report") == 2
    assert f"The history of publications is not at {tmp_path}/gone" in page
    assert f"The plan is not at {tmp_path}/gone/runs/2023-01" in page
    assert "The residual is not known: no chip could be compared with its scenes." in page
    assert "The run's folder is deleted" in page
    assert np.isfinite([band.seam_ratio for band in told.periods[0].seams.bands]).all()


def test_the_command_writes_one_file_and_says_where(cube, report, tmp_path):
    code, said, error = report(cube.storage.url, "--output", tmp_path / "page.html", "--period", "2023-02")
    assert (code, error) == (0, "")
    assert re.fullmatch(rf"{tmp_path}/page\.html  0\.\d\d MB\n", said)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert '<h2 id="h0">2023-02</h2>' in page


@pytest.mark.parametrize(
    ("words", "expected", "code"),
    [
        (("CUBE", "--period", "2024-01"), "--period: the cube has no 2024-01; it has 2023-01, 2023-02", 2),
        (("CUBE", "--output", "HERE/none/page.html"), "cannot be written (no such folder); choose another --output", 1),
        (("CUBE", "--output", "HERE"), "cannot be written (Is a directory); choose another --output", 1),
        (("HERE/none.zarr",), "holds no cube; give the URL that store.url names", 1),
        (("HERE/none.yaml",), "none.yaml: cannot be read", 2),
    ],
)
def test_what_cannot_be_told_of_is_one_line(words, expected, code, cube, report, tmp_path):
    ended, _, error = report(*(w.replace("CUBE", cube.storage.url).replace("HERE", str(tmp_path)) for w in words))
    assert (ended, error.count("\n")) == (code, 1)
    assert expected in error


def test_a_damaged_shard_is_one_line(cube, report, tmp_path):
    shutil.copytree(cube.storage.url, tmp_path / "cube.zarr")
    shard = tmp_path / "cube.zarr" / str(EPSG) / "0" / "reflectance" / "c" / "0" / "0" / "0" / "0"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    code, _, error = report(tmp_path / "cube.zarr", "--output", tmp_path / "page.html")
    assert (code, error.count("\n")) == (1, 1)
    assert "`difffusr verify` names damaged shards" in error
    assert not (tmp_path / "page.html").exists()
