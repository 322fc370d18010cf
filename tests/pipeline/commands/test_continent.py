"""What `difffusr continent` writes into a file, without engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from two_zones import publish_zones, waves, windows_at

from difffusr.pipeline.commands import cli, continent
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.storage.objects import Storage

LON, LAT = 12.0, 48.0
GROUND = {"type": "Polygon", "coordinates": [[[11.9, 47.9], [12.1, 47.9], [12.1, 48.1], [11.9, 48.1], [11.9, 47.9]]]}


@pytest.fixture(scope="module")
def zones(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zones")
    windows = windows_at(LON, LAT, (32632, 32633), (1, 2))
    publish_zones(Storage(f"{folder}/zones.zarr"), windows, dict.fromkeys(windows, waves(LON, LAT)))
    return folder


@pytest.mark.parametrize(
    "config", ["laea.yaml", "./laea.yaml", "conf/laea.yaml", "../laea.yaml", "{}/elsewhere/laea.yaml"]
)
@pytest.mark.parametrize("target", ["laea.zarr", "icechunk+./laea", "s3://bucket/laea.zarr"])
def test_the_file_that_it_writes_means_what_the_command_means(zones, tmp_path, monkeypatch, config, target):
    here = tmp_path / "here"
    for folder in (here / "conf", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    (here / "zones.zarr").symlink_to(zones / "zones.zarr")
    (here / "zones.staging").symlink_to(zones / "zones.staging")
    (here / "ground.geojson").write_text(json.dumps(GROUND))
    made = []
    monkeypatch.chdir(here)
    monkeypatch.setattr(continent, "_made", lambda settings, *_: made.extend(settings) or 0)
    file = config.format(tmp_path)
    words = "zones.zarr", target, "--crs", "EPSG:3035", "--area", "ground.geojson", "--config", file
    monkeypatch.setattr("sys.argv", ["difffusr", "continent", *words, "--source-staging", "zones.staging"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    monkeypatch.chdir(tmp_path)
    kept = load_config(here / file)
    assert kept == made[0]
    assert str(kept.area.geojson) == str(here / "ground.geojson")
