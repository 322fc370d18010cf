"""A cube of balanced scenes: what was done is told everywhere, and the cube is compared with what it was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from difffusr.kernels.bands import BANDS
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.cube.published import Cube
from difffusr.pipeline.plan.balance import read_balance
from difffusr.pipeline.readers.verdicts import RESIDUAL_LIMIT
from difffusr.pipeline.run.execution import execute
from difffusr.pipeline.scenes.synthetic import write_two_orbits
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.storage.places import staging_of


class _Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


@pytest.fixture(scope="module")
def balanced_run(_ray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a run that has ended: two orbits, brought to nadir; nobody may change what it wrote."""
    folder = tmp_path_factory.mktemp("balanced")
    world = write_two_orbits(folder / "world", size_m=(1200, 1800))
    content = {
        "area": {"bbox": [float(edge) for edge in world.bbox]},
        "period": {"start": world.period[0], "end": world.period[1]},
        "source": {"static_catalog": str(world.catalog)},
        "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
        "scenes": {"balance": "nbar"},
        "model": {"sampler": "draft"},
        "compute": {"actors_max": 1},
        "store": {"url": "run.zarr"},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    assert execute(load_config(path), _Silent()).exit_code == 0
    return path


def staging(path: Path) -> Path:
    return Path(staging_of(load_config(path)).url)


def residuals(page: str) -> list[str]:
    """The column of the report's table."""
    table = page.partition(">Seams and residual</h3>")[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.findall(r"<td>(.*?)</td>", row)[2] for row in re.findall(r"<tr>(.*?)</tr>", table)]


@pytest.fixture
def hidden(balanced_run: Path) -> Iterator[Path]:
    """The balance beside the published plan, out of sight during a test."""
    kept = staging(balanced_run) / "published" / "balance.parquet"
    kept.rename(kept.with_suffix(".hidden"))
    yield balanced_run
    kept.with_suffix(".hidden").rename(kept)


def test_verify_and_report_compare_with_scenes_as_they_were_balanced(command, balanced_run, tmp_path):
    command("verify", balanced_run, "--json", tmp_path / "verify.json")
    found = json.loads((tmp_path / "verify.json").read_text())
    assert (found["missing"], found["damaged"], found["incomplete"]) == ([], [], [])
    for band in found["bands"]:
        assert 0 < band["residual"] <= RESIDUAL_LIMIT[10], band
    assert command("report", balanced_run, "--output", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text()
    assert residuals(page) == [f"{band['residual']:.5f}" for band in found["bands"]]
    assert "10 scenes brought to a view from above" in page
    assert "10 m, balanced" in page
    assert "Missing from this report" not in page


def test_the_residual_tells_if_scenes_are_taken_as_they_were_measured(balanced_run, monkeypatch, command, tmp_path):
    """What the test above would find if what was done to the scenes were forgotten."""
    from difffusr.pipeline.readers.report import collect

    monkeypatch.setattr(collect, "as_balanced", lambda scenes, plan, made: (dict(scenes), []))
    assert command("report", balanced_run, "--output", tmp_path / "report.html").code == 0
    found = dict(zip(BANDS, map(float, residuals((tmp_path / "report.html").read_text())), strict=True))
    assert found["B08"] > 2 * RESIDUAL_LIMIT[10]


def test_without_what_was_done_nothing_is_compared_and_that_is_said(hidden, command, tmp_path):
    assert command("report", hidden, "--output", tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text()
    assert set(residuals(page)) == {"–"}
    assert re.search(r"what was done to (\d+) of \1 scenes is not kept beside the plan \(balance.parquet\)", page)
    assert "2.5 m averaged to 10 m" in page
    assert re.search(r"\d+ scenes brought to a view from above", page)


def test_what_was_done_is_in_the_cube_and_in_stac_as_in_the_plan(balanced_run, command, tmp_path):
    kept = read_balance(staging_of(load_config(balanced_run)).child("published"))
    assert kept is not None
    cube = Cube(Storage(str(balanced_run.with_suffix(".zarr"))))
    scenes = {facts["id"]: facts["balance"] for facts in cube.scenes.values()}
    assert command("stac", balanced_run, tmp_path / "stac").code == 0
    (file,) = (tmp_path / "stac").glob("*_32632_*.json")
    told = json.loads(file.read_text())["properties"]["difffusr:balance"]
    assert (told["method"], told["sun"]) == ("nbar", "scene")
    coefficients = {one["id"]: one for one in told["coefficients"]}
    assert set(coefficients) == set(scenes)
    for name, facts in scenes.items():
        done = kept.correction[name]
        for one in (facts, coefficients[name]):
            np.testing.assert_allclose(one["factor"], done.factor.mean(axis=(1, 2)), atol=1e-5)
            assert (one["gain"], one["hazy"]) == (done.gain.tolist(), False)
        assert facts["angles"] == "granule"
        assert not any(facts["shift"])


def test_the_command_plan_tells_the_same_in_both_ways(balanced_run, command, tmp_path):
    shown = command("plan", balanced_run, "--diff", "--json", tmp_path / "told.json")
    assert shown.code == 0
    rows = json.loads((tmp_path / "told.json").read_text())["balance"]
    lines = {line.split()[0]: line for line in shown.out.splitlines() if line.startswith((" S2", "S2"))}
    assert rows
    for row in rows:
        low, high = row["factor"]
        assert f"{low:.3f}–{high:.3f}" in lines[row["id"]]
        assert "granule" in lines[row["id"]]
        assert (row["before"], row["hazy"], row["balanced"]) == (None, False, True)
