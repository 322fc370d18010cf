"""The fusion is judged on places that left its training, all of them in turn, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rasterio
from beside import SHARED
from mixed_scene import mixed_scene
from rich.console import Console

from difffusr.kernels.networks.fusion import build_fusion
from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.weights.evaluation import leave_out as module
from difffusr.pipeline.weights.evaluation.leave_out import FOLDS, leave_out, main, show, summary
from difffusr.pipeline.weights.training.checkpoint import export
from difffusr.pipeline.weights.training.scenes import load_scenes
from difffusr.pipeline.weights.training.settings import FusionSettings, load_settings

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CONFIGURATION = Path(__file__).parents[4] / module.CONFIGURATION


@pytest.fixture
def settings(tmp_path) -> FusionSettings:
    scene = {band: x[: len(x) // 2, : len(x) // 2] for band, x in mixed_scene().bands.items()}
    for name in ("north", "south", "south-again"):
        folder = tmp_path / "s2" / name
        folder.mkdir(parents=True)
        for band, values in scene.items():
            shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": "uint16"}
            with rasterio.open(folder / f"{band}.tif", "w", driver="GTiff", **shape) as file:
                file.write((values * 10_000).numpy().astype("uint16"), 1)
    given = {
        "out": str(tmp_path / "out"), "root": str(tmp_path), "data": [{"path": "s2", "held_out": ["south*"]}],
        "network": {"generation": "corrected", "channels": 4, "blocks": 1, "growth": 4}, "variation": "wide",
        "steps": 2, "batch": 1, "truth_px": 24,
    }  # fmt: skip
    return FusionSettings.model_validate(given)


def test_every_scene_is_judged_by_a_network_that_has_not_seen_it(settings, monkeypatch):
    seen: dict[str, list[str]] = {}

    def noted(of_fold: FusionSettings) -> Path:
        """A network that has learned nothing."""
        seen[Path(of_fold.out).name] = [scene.name for scene in load_scenes(of_fold.data, Path(of_fold.root))[0]]
        Path(of_fold.out).mkdir(parents=True)
        return export(Path(of_fold.out) / "fusion.safetensors", build_fusion(of_fold.network), {})

    monkeypatch.setattr(module, "train_here", noted)
    folds = {"one": ("north",), "two": ("south*",)}
    found = leave_out(settings, folds)
    assert seen == {"one": ["south", "south-again"], "two": ["north"]}, "what the file holds out is learned from"
    assert {row["scene"].split("@")[0] for row in found["scenes"]} == {"north", "south", "south-again"}
    assert set(found["groups"]) == {"10 m bands", "20 m bands"}, "the scene is too small for 60 m"
    for row in found["scenes"]:
        # it is the estimate, brought into its range
        assert row["network ergas"] == pytest.approx(row["estimate ergas"], rel=0.15)
        assert row["best by ergas"] not in ("fusion network", "regression on finer bands + bp")
    monkeypatch.setattr(module, "train_here", lambda _: pytest.fail("trained again"))
    monkeypatch.setattr(module, "judged", lambda *_: found["scenes"])
    assert leave_out(settings, folds)["groups"]["20 m bands"]["scenes"] == 6, "three of each fold"


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"one": ("north",)}, "south is in none"),
        ({"one": ("north",), "two": ("south",)}, "south-again is in none"),
        ({"one": ("*",), "two": ("north",)}, "north is in one, two"),
        ({"one": ("*",), "two": ("west",)}, "no scene is in two"),
        ({}, "north is in none"),
    ],
)
def test_folds_that_do_not_fit_the_scenes_are_refused(settings, folds: dict[str, tuple[str, ...]], message: str):
    with pytest.raises(ConfigError, match=message):
        leave_out(settings, folds)


def _row(scene: str, best: tuple[float, float], network: tuple[float, float], group: str = "20 m bands") -> Any:
    pairs = {"best ergas": best[0], "best sam": best[1], "network ergas": network[0], "network sam": network[1]}
    return {"group": group, "scene": scene, "estimate ergas": 1.0, "estimate sam": 1.0, **pairs}


@pytest.mark.parametrize(
    ("network", "lost"),
    [((0.5, 1.5), []), ((1.0, 2.0), []), ((1.01, 1.0), ["x"]), ((0.5, 2.01), ["x"]), ((1.2, 2.4), ["x"])],
)
def test_a_scene_is_lost_in_either_measure(network: tuple[float, float], lost: list[str]):
    rows = [_row("x", (1.0, 2.0), network), _row("y", (2.0, 1.0), (1.0, 0.5)), _row("z", (1, 1), (1, 1), "60 m bands")]
    of = summary(rows)["20 m bands"]
    assert of["lost"] == lost
    assert of["mean ergas"] == pytest.approx((network[0] + 0.5) / 2, abs=1e-3)
    assert of["worst sam"] == pytest.approx(max(network[1] / 2, 0.5), abs=1e-3)
    assert summary(rows)["60 m bands"]["scenes"] == 1


def test_the_table_names_what_was_lost():
    rows = [_row("a-scene@0,0", (1.0, 2.0), (1.1, 1.0))]
    console = Console(record=True, width=120)
    show({"scenes": rows, "groups": summary(rows)}, console)
    assert "lost: a-scene@0,0" in console.export_text().replace("\n", "")


def test_the_folds_hold_every_aligned_scene_once():
    if not (SHARED / "data").exists():
        pytest.skip(f"no scenes at {SHARED / 'data'}")
    settings = load_settings(FusionSettings, CONFIGURATION, {"root": SHARED / "data"})
    scenes, _ = load_scenes(module.held_out(settings, ()).data, Path(settings.root))
    assert sum(map(len, module._members(scenes, FOLDS).values())) == len(scenes) == 19


def test_the_command_line_needs_data(tmp_path):
    with pytest.raises(SystemExit):
        main([])
    with pytest.raises(DifffusrError):
        main(["--data", str(tmp_path), "--configuration", str(CONFIGURATION), "--out", str(tmp_path / "out")])
