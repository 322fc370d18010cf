"""Everything of a run may lie in a folder whose name looks like a URL; nothing beside it is read or written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import geopandas as gpd
import pytest
import xarray as xr
from odd_names import ODD_NAMES
from shapely.geometry import box

from difffusr.kernels.weights.packaged import shipped

if TYPE_CHECKING:
    from .conftest import Ended


@pytest.fixture
def place(world, tmp_path: Path) -> Callable[[str], Path]:
    """The world in a folder of the given name, with weights and areas."""

    def make(name: str) -> Path:
        odd = tmp_path / "new" / name
        shutil.copytree(world.catalog.parent, odd)
        for stage in ("stage1", "fusion"):
            shutil.copy(shipped("small", stage), odd / f"{stage} #1.safetensors")
        items = []
        for path in sorted(odd.glob("items/*/*.json")):
            item = json.loads(path.read_text())
            for asset in item["assets"].values():
                asset["href"] = f"./items/{item['id']}/{asset['href'].removeprefix('./')}"
            items.append(item)
        text = json.dumps({"type": "FeatureCollection", "features": items})
        (odd / "items ?#.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
        area = gpd.GeoDataFrame(geometry=[box(*world.bbox)], crs=4326)
        (odd / "area #1.geojson").write_bytes(b"\xef\xbb\xbf" + area.to_json(drop_id=True).encode())
        return odd

    return make


SOURCES = [
    {"static_catalog": "catalog.json"},
    {"static_catalog": "."},
    {"items": "items ?#.json"},
    {"items": "file://{coded}/items%20%3F%23.json"},
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_plan_is_made_wherever_its_files_lie(
    place, configure: Callable[..., Path], command: Callable[..., Ended], name: str
) -> None:
    odd = place(name)
    for k, source in enumerate(SOURCES):
        found = {key: value.format(coded=quote(str(odd))) for key, value in source.items()}
        area = {"geojson": "area #1.geojson"}
        written = configure(source=found, area=area, store={"url": f"./cube ?{k}.zarr"})
        ended = command("plan", written.rename(odd / f"run #{k}.yaml"))
        assert ended.code == 0, (source, ended.err)
        assert (odd / f"cube ?{k}.staging" / "runs").is_dir()
    assert [path.name for path in odd.parent.iterdir()] == [odd.name]


@pytest.mark.usefixtures("_ray")
def test_a_run_stays_in_its_folder(place, configure: Callable[..., Path], command: Callable[..., Ended]) -> None:
    odd = place("läuft nicht? #2")
    model = {"sampler": "draft", "stage1": "stage1 #1.safetensors", "fusion": "fusion #1.safetensors"}
    written = configure(
        source={"items": "items ?#.json"}, model={"sampler_steps": None, **model}, store={"url": "cube ü? #1"}
    )
    config = written.rename(odd / "run ?.yaml")
    ended = command("run", config)
    assert ended.code == 0, ended.err
    assert "clean" in command("verify", config).out
    assert xr.open_zarr(odd / "cube ü? #1", group="32632/0").reflectance.sizes["time"] == 1
    assert [path.name for path in odd.parent.iterdir()] == [odd.name]
