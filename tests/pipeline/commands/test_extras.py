"""A command without a package that it needs says in one line which extra to install; planning needs none."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call, write_metadata
from configs import written

from difffusr.pipeline.commands.extras import missing_extra
from difffusr.pipeline.scenes.synthetic.world import write_demo_world


def said(folder: Path, words: str, *missing: str) -> str:
    """What a command says that ends with one line and exit code 2."""
    called = call(folder, *words.split(), missing=missing)
    assert called.code == 2, called.err
    assert called.err.count("\n") == 1, called.err
    return called.err.strip()


@pytest.mark.parametrize(
    ("words", "missing", "extra"),
    [
        ("run config.yaml", "ray", "run"),
        pytest.param("run config.yaml", "torch", "run", marks=pytest.mark.slow),
        pytest.param("run config.yaml", "dask", "run", marks=pytest.mark.slow),
        ("verify config.yaml", "torch", "run"),
        pytest.param("calibrate config.yaml", "ray", "run", marks=pytest.mark.slow),
        ("demo", "ray", "run"),
        pytest.param("evaluate sr images", "torch", "run", marks=pytest.mark.slow),
        ("evaluate fusion scenes", "safetensors", "run"),
        ("train sr train.yaml", "torch", "train"),
        pytest.param("train sr train.yaml", "ray", "train", marks=pytest.mark.slow),
        pytest.param("train fusion train.yaml", "matplotlib", "train", marks=pytest.mark.slow),
        pytest.param("view cube.zarr", "uvicorn", "view", marks=pytest.mark.slow),
        ("view cube.zarr", "titiler", "view"),
    ],
)
def test_the_extra_that_a_command_lacks_is_named(tmp_path: Path, words: str, missing: str, extra: str) -> None:
    written(tmp_path)
    (tmp_path / "train.yaml").write_text("out: o\ndata: [{path: hr, gsd_m: 2.5}]\n")
    if "fusion" in words:
        (tmp_path / "train.yaml").write_text("out: o\ndata: [{path: s2}]\n")
    needed = f"{words.partition(' ')[0]} needs the package {missing}"
    assert said(tmp_path, words, missing) == f"error: {needed}: pip install 'difffusr[{extra}]'"


@pytest.mark.parametrize(
    ("url", "missing", "what", "extra"),
    [
        ("s3://bucket/cube.zarr", "s3fs", "s3://", "s3"),
        ("gs://bucket/cube.zarr", "gcsfs", "gs://", "gcs"),
        ("icechunk+cube", "icechunk", "icechunk+…", "icechunk"),
        ("icechunk+s3://bucket/cube", "icechunk", "icechunk+…", "icechunk"),
    ],
)
def test_the_extra_that_a_store_lacks_is_named(tmp_path: Path, url: str, missing: str, what: str, extra: str) -> None:
    written(tmp_path, store={"url": url})
    line = f"error: {what} needs the package {missing}: pip install 'difffusr[{extra}]'"
    assert said(tmp_path, "status config.yaml", missing) == line
    assert said(tmp_path, f"stac {url} catalog", missing) == line


def test_the_staging_folder_of_a_repository_needs_its_own_extra(tmp_path: Path) -> None:
    written(tmp_path, store={"url": "icechunk+s3://bucket/cube"})
    line = "error: s3:// needs the package s3fs: pip install 'difffusr[s3]'"
    assert said(tmp_path, "status config.yaml", "s3fs") == line


@pytest.mark.parametrize("missing", ["ukis_csmask", "onnxruntime"])
def test_the_extra_that_a_mask_lacks_is_named_by_what_plans(tmp_path: Path, missing: str) -> None:
    written(tmp_path, scenes={"masks": "csmask"})
    line = "error: scenes.masks: csmask needs the package ukis-csmask: pip install 'difffusr[csmask]'"
    assert said(tmp_path, "plan config.yaml", missing) == line
    assert said(tmp_path, "run config.yaml", missing) == line


def test_a_broken_installation_keeps_its_traceback(tmp_path: Path) -> None:
    called = call(tmp_path, "status", written(tmp_path), missing=["fsspec"])
    assert called.code == 1
    assert "ModuleNotFoundError: No module named 'fsspec'" in called.err


def test_extras_are_those_of_the_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(write_metadata(tmp_path)))

    def extra(module: str, command: str) -> str | None:
        found = missing_extra(ModuleNotFoundError(name=module), command)
        return None if found is None else str(found).rpartition("pip install ")[2]

    assert extra("ray.data", "run") == "'difffusr[run]'"
    assert extra("ray.train", "train") == "'difffusr[train]'"
    assert extra("torch", "train") == "'difffusr[train]'", "what an extra brings by another one is its own"
    assert extra("tensorboardX", "train") == "'difffusr[train]'", "what its packages need"
    assert extra("rio_tiler", "view") == "'difffusr[view]'"
    assert extra("planetary_computer.sas", "plan") == "'difffusr[planetary-computer]'"
    assert extra("numpy", "run") is None
    assert extra("difffusr.nowhere", "run") is None
    assert extra("nowhere", "status") is None


def test_planning_needs_no_extra(tmp_path: Path) -> None:
    world = write_demo_world(tmp_path / "world", seed=11, size_m=(1200, 1800))
    path = written(
        tmp_path,
        area={"bbox": [float(edge) for edge in world.bbox]},
        period={"start": world.period[0], "end": world.period[1]},
        source={"static_catalog": str(world.catalog)},
        grid={"chip_px": 96},
        store={"url": "cube.zarr"},
    )
    extras = ("torch", "ray", "dask", "safetensors", "icechunk", "s3fs", "gcsfs", "matplotlib", "planetary_computer")
    called = call(tmp_path, "plan", path, missing=extras)
    assert called.code == 0, called.err
    assert len(list(tmp_path.glob("cube.staging/runs/*/plan/chips.parquet"))) == 1
