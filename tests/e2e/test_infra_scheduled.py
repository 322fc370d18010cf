"""The scheduled job's command, as its YAML has it, run twice: the second time there is nothing to do."""

from __future__ import annotations

import datetime as dt
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
import yaml
from beside import ROOT

KUBERAY = ROOT / "infra" / "kuberay"


def entrypoint() -> list[str]:
    """The job's command, word by word; the monthly job's is copied from it."""
    job = yaml.safe_load((KUBERAY / "components" / "job" / "rayjob.yaml").read_text())
    return shlex.split(job["spec"]["entrypoint"])


def mounted() -> dict[str, Path]:
    """The files that the driver's container sees, by their path there."""
    cluster = yaml.safe_load((KUBERAY / "base" / "raycluster.yaml").read_text())
    pod = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    maps = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"]}
    overlay = yaml.safe_load((KUBERAY / "overlays" / "aws" / "kustomization.yaml").read_text())
    files = {one["name"]: one["files"] for one in overlay["configMapGenerator"]}
    return {
        f"{mount['mountPath']}/{name}": KUBERAY / "overlays" / "aws" / name
        for mount in pod["containers"][0]["volumeMounts"]
        for name in files[maps[mount["name"]]]
    }


@pytest.fixture
def command(world, tmp_path) -> list[str]:
    """The command; the ConfigMap's file asks for a generated world, whose scenes are of the month before this one."""
    month = (dt.datetime.now(dt.UTC).replace(day=1) - dt.timedelta(days=1)).strftime("%Y-%m")
    shutil.copytree(world.catalog.parent, tmp_path / "archive")
    for path in (tmp_path / "archive").rglob("*.json"):
        item = json.loads(path.read_text())
        if when := item.get("properties", {}).get("datetime"):
            item["properties"]["datetime"] = f"{month}{when[7:]}"
            path.write_text(json.dumps(item))
    words = entrypoint()
    for there, file in mounted().items():
        content = yaml.safe_load(file.read_text())
        assert content["period"] == "last-month"
        content |= {
            "area": {"bbox": [float(edge) for edge in world.bbox]},
            "source": {"static_catalog": "archive/catalog.json"},
            "store": {"url": "cube.zarr"},
            "grid": {"chip_px": 96, "overlap_px": 24, "shard_px": 512, "chunk_px": 256},
            "model": {"sampler": "draft"},
            "compute": {},
        }
        (tmp_path / file.name).write_text(yaml.safe_dump(content))
        assert there in words
        words = [str(tmp_path / file.name) if word == there else word for word in words]
    assert words[0] == "difffusr"
    return [str(Path(sys.executable).with_name("difffusr")), *words[1:]]


@pytest.mark.slow  # two starts of the command; that nothing is done twice is shown in test_run.py
def test_the_scheduled_command_run_again_finds_everything_done(command, tmp_path):
    def run() -> list[dict]:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]

    def written() -> dict[Path, tuple[int, int]]:
        """Every object of cube, chips and shards: inode and time of writing."""
        objects = [path for name in ("cube.zarr", "cube.staging") for path in (tmp_path / name).rglob("*")]
        kept = [path for path in objects if path.is_file() and {"lease", "plan"}.isdisjoint(path.parts)]
        return {
            p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in kept if p.name not in ("progress.json", "report.json")
        }

    run()
    with xr.open_zarr(tmp_path / "cube.zarr", group="32632/0") as cube:
        assert (cube.quality > 0).any()
    first = written()
    assert any(".zarr/32632/0/reflectance/c/" in str(path) for path in first)

    config = next(Path(word) for word in command if word.endswith(".yaml"))
    # No Ray answers there: a run that asked for a worker would fail.
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"compute": {"address": "127.0.0.1:1"}}))
    run()
    assert written() == first
    (report,) = (tmp_path / "cube.staging").rglob("report.json")
    counts = json.loads(report.read_text())
    assert (counts["chips"]["computed"], counts["shards"]["written"], counts["rewritten"]) == (0, 0, {})
