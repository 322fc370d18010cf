"""From nothing to a cube without an editor: what `init` writes is planned and run as it stands. And whoever wants to
know is told how runs end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr
from hook_server import hook_server

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.scenes.synthetic.world import DemoWorld

DRAFT = {"sampler": "draft", "sampler_steps": None}


def middle(world: DemoWorld) -> list[float]:
    """A box of about 100 m: few chips."""
    west, south, east, north = map(float, world.bbox)
    x, y = (west + east) / 2, (south + north) / 2
    return [x - 5e-4, y - 5e-4, x + 5e-4, y + 5e-4]


def test_init_plan_run_without_an_editor(difffusr, world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    bbox = ",".join(map(str, middle(world)))
    period = "_".join(map(str, world.period))
    begun = difffusr("init", "first.yaml", "--bbox", bbox, "--period", period, "--source", world.catalog, "--yes")
    assert (begun.code, begun.err) == (0, "")
    assert "difffusr plan first.yaml" in begun.out
    planned = difffusr("plan", "first.yaml")
    assert planned.code == 0, planned.err
    assert "first · " in planned.out
    ended = difffusr("run", "first.yaml")
    assert ended.code == 0, ended.err
    config = load_config(tmp_path / "first.yaml")
    assert config.store.url == str(tmp_path / "first.zarr")
    with xr.open_zarr(config.store.url, group="32632/0") as cube:
        assert int((cube.reflectance.sel(band="B04") > 0).sum()) > 40 * 40


def test_runs_tell_how_they_ended_and_only_where_there_is_news(difffusr, configure, world, monkeypatch) -> None:
    with hook_server() as server:
        monkeypatch.setenv("HOOK", server.url)
        monkeypatch.setenv("HOOK_SECRET", "SIGNING-SECRET")
        told: dict[str, Any] = {"notify": {"url_env": "HOOK", "secret_env": "HOOK_SECRET"}, "model": DRAFT}
        told["area"] = {"bbox": middle(world)}
        source = {"static_catalog": str(world.catalog)}
        failed = difffusr("run", configure("told", **told, source={"static_catalog": "nowhere/catalog.json"}))
        published = difffusr("run", configure("told", **told, source=source))
        unchanged = difffusr("run", configure("told", **told, source=source))
        quiet = difffusr("run", configure("quiet", model=DRAFT, source={"static_catalog": "nowhere/catalog.json"}))
    assert [failed.code, published.code, unchanged.code, quiet.code] == [1, 0, 0, 1]
    assert [(one["event"], one["exit_code"]) for one in server.messages] == [("failed", 1), ("published", 0)]
    assert all(got.signed_with(b"SIGNING-SECRET") for got in server.got)
    assert "SECRET" not in "".join(got.body.decode() for got in server.got)
    one = server.messages[1]
    assert one["chips"]["done"] == one["chips"]["planned"] > 0
    assert one["shards"]["done"] == one["shards"]["planned"] > 0
    assert one["cpu_hours"] > 0
    assert "HOOKSECRET" not in failed.err + failed.out + published.err + published.out
