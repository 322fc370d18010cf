"""A command that computes nothing answers at once: it imports no networks, no cluster and no raster library."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from command_line import Called, call
from configs import written

from difffusr.pipeline.watch.pulse import RunStatus

HEAVY = {
    "torch", "ray", "geopandas", "numpy", "zarr", "rasterio", "xarray", "pandas", "pyarrow", "scipy", "dask", "pystac",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a run that is at work, and has published before."""
    folder = tmp_path_factory.mktemp("run")
    path = written(folder, period="2023-06", store={"url": "cube.zarr"})
    status = RunStatus("run", "2023-06", updated=time.time(), chips=100, chips_done=25, shards=4, rate=0.5)
    published = {
        "number": 1, "when": "2023-07-01T00:00:00+00:00", "kind": "period", "period": "2023-05-01 – 2023-05-31",
        "zones": {"32632": 1}, "steps": {"32632": 1}, "shards_written": 12, "state": "published",
    }  # fmt: skip
    bands = [{"band": "B02", "ratio": 1.01, "error": 0.02, "ok": True}]
    verified = {
        "when": "2023-07-01T10:30:00+00:00", "publication": 0, "clean": True, "missing": 0, "damaged": 0,
        "incomplete": 0, "bands_off": [], "worst_border": None,
        "sources": [{"kind": "dates", "borders": 12, "ok": True, "bands": bands}],
    }  # fmt: skip
    for name, document in {
        "runs/2023-06/progress.json": asdict(status),
        "runs/2023-06/verified.json": verified,
        "history/000001.json": published,
    }.items():
        file = folder / "cube.staging" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))
    return path


def heavy(called: Called) -> set[str]:
    return HEAVY & {name.partition(".")[0] for name in called.modules}


@pytest.mark.parametrize(
    "words",
    ["--help", "--version", "stauts", "plan --help", "verify --help", "train --help", "evaluate sr --help", "run"],
)
def test_help_and_typos_import_nothing_heavy(tmp_path: Path, words: str) -> None:
    called = call(tmp_path, *words.split())
    assert not heavy(called)
    assert "fsspec" not in called.modules
    assert called.peak_mb < 130
    assert called.code == (0 if "--" in words else 2), called.err


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    assert re.fullmatch(r"difffusr \d+\.\d+\.\d+\n", call(tmp_path, "--version").out)


def test_status_reads_an_object_and_imports_nothing_heavy(tmp_path: Path, run: Path) -> None:
    called = call(tmp_path, "status", run)
    assert called.code == 0, called.err
    assert "25 of 100 done" in called.out
    assert "2023-07-01 10:30 UTC: clean; published again since" in called.out
    assert not heavy(called)
    assert called.peak_mb < 130


def test_history_reads_documents_and_imports_nothing_heavy(tmp_path: Path, run: Path) -> None:
    called = call(tmp_path, "history", run)
    assert called.code == 0, called.err
    assert "2023-05-01 – 2023-05-31" in called.out
    assert not heavy(called)
    assert called.peak_mb < 130


def test_a_wrong_configuration_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("area: {}\n")
    for command in ("plan", "run", "verify", "calibrate"):
        called = call(tmp_path, command, "run.yaml")
        assert called.code == 2
        assert "run.yaml: area: found none, expected exactly one of" in called.err
        assert not heavy(called)
