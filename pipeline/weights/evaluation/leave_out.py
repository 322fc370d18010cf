"""Judges the fusion network on places it has not seen, all of them in turn: `make leave-one-out DATA=…`.

For every fold a network is trained without the fold's scenes and compared on them with the best classical methods. What
is done is kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from difffusr.kernels.networks.fusion import fusion_from_weights
from difffusr.kernels.weights import load_weights
from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.weights.evaluation.fusion import CONSISTENT, ESTIMATE, evaluate_fusion
from difffusr.pipeline.weights.evaluation.report import Scores
from difffusr.pipeline.weights.training import FusionSettings, NativeScene, load_scenes, load_settings, train_here

#: Globs of scenes that leave together. Scenes less than 100 km apart are one place; some places far from each other
#: share a fold, so that there are fewer trainings. Each of the three places with real 60 m bands leaves alone of them.
FOLDS: Final[Mapping[str, tuple[str, ...]]] = {
    "north-in-May": ("*T94033_*", "*T34WFU_*"),
    "Mekong-Finland-Latvia": ("S2B_48QU[DE]_*", "*T093019_*", "*T93021_*", "*T094019_*"),
    "Punjab-Serbia-Portugal": ("S2B_43RCP_*", "*T093029_*", "*T093039_*", "*T112501_*"),
    "Ireland": ("*T113321_*", "*T114349_*"),
    "T33U": ("*T33UU?", "*T33UUP_*"),
}

METRICS: Final = ("ergas", "sam")

CONFIGURATION: Final = Path("pipeline/config/examples/train-fusion-small.yaml")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: where the data are, how long to train, where trainings and result go."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.weights.evaluation.leave_out", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that l2a_patches/ and archive/ are in")
    parser.add_argument("--configuration", type=Path, default=CONFIGURATION, help="of the training")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("runs/leave-one-out"), help="folder of the trainings")
    parser.add_argument("--result", type=Path, default=Path("tests/bench/leave-one-out.json"))
    args = parser.parse_args(argv)
    overrides = {"root": args.data.resolve(), "out": args.out.resolve(), "steps": args.steps}
    settings = load_settings(FusionSettings, args.configuration, overrides)
    found = leave_out(settings, FOLDS)
    args.result.write_text(json.dumps(found, indent=1) + "\n")
    show(found, Console())


def leave_out(settings: FusionSettings, folds: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Train and judge every fold below `settings.out`; what the configuration holds out is learned from as well.

    Returns how it was made, the scores of every scene and group, and by group the means and what was lost. Raises
    ConfigError where a scene is in no fold or in several, or a fold has none.
    """
    plain = held_out(settings, ())
    scenes, _ = load_scenes(plain.data, Path(plain.root))
    members = _members(scenes, folds)
    rows: list[dict[str, Any]] = []
    for name, globs in folds.items():
        of_fold = held_out(settings, globs).model_copy(update={"out": str(Path(settings.out) / name)})
        weights = Path(of_fold.out) / "fusion.safetensors"
        if not weights.exists():
            print(f"{name}: training without {len(members[name])} scenes", flush=True)
            train_here(of_fold)
        rows += judged(weights, name, members[name])
    return {"made": _made(settings), "folds": folds, "groups": summary(rows), "scenes": rows}


def held_out(settings: FusionSettings, globs: tuple[str, ...]) -> FusionSettings:
    """The settings with these scenes held out, and no others."""
    only = {"held_out": globs, "held_out_every": None}
    return settings.model_copy(update={"data": tuple(source.model_copy(update=only) for source in settings.data)})


def _members(scenes: Sequence[NativeScene], folds: Mapping[str, tuple[str, ...]]) -> dict[str, list[NativeScene]]:
    members: dict[str, list[NativeScene]] = {name: [] for name in folds}
    for scene in scenes:
        among = [name for name, globs in folds.items() if any(fnmatch(scene.name, glob) for glob in globs)]
        if len(among) != 1:
            raise ConfigError(f"folds: {scene.name} is in {', '.join(among) or 'none'}; it must be in one")
        members[among[0]].append(scene)
    if empty := [name for name, of in members.items() if not of]:
        raise ConfigError(f"folds: no scene is in {', '.join(empty)}")
    return members


def judged(weights: Path, fold: str, scenes: Sequence[NativeScene]) -> list[dict[str, Any]]:
    """Of every scene and group: the best classical method, the estimate and the network, ERGAS and SAM in degrees."""
    found = evaluate_fusion(fusion_from_weights(load_weights(weights)), scenes, {}, crops=0)
    return [
        {"group": table.title, "scene": sample, "fold": fold, **_compared(table, scores)}
        for table in found.tables
        for sample, scores in table.each.items()
    ]


def _compared(table: Scores, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for metric in METRICS:
        best = min((name for name in scores if name not in table.ours), key=lambda name: scores[name][metric])
        row[f"best {metric}"], row[f"best by {metric}"] = round(scores[best][metric], 4), best
        row[f"estimate {metric}"] = round(scores[ESTIMATE][metric], 4)
        row[f"network {metric}"] = round(scores[CONSISTENT][metric], 4)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By group: mean and worst of network : best classical method, by scene, and the scenes where the network lost."""
    groups: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        of = [row for row in rows if row["group"] == group]
        found: dict[str, Any] = {"scenes": len(of)}
        for metric in METRICS:
            ratios = [row[f"network {metric}"] / row[f"best {metric}"] for row in of]
            found[f"mean {metric}"], found[f"worst {metric}"] = round(float(np.mean(ratios)), 3), round(max(ratios), 3)
        found["lost"] = [row["scene"] for row in of if any(row[f"network {m}"] > row[f"best {m}"] for m in METRICS)]
        groups[group] = found
    return groups


def show(found: Mapping[str, Any], console: Console) -> None:
    """A line a scene and group, and a line a group."""
    table = Table("group", "scene", "ERGAS best", "estimate", "network", "SAM best", "estimate", "network")
    for row in found["scenes"]:
        figures = [row[f"{of} {metric}"] for metric in METRICS for of in ("best", "estimate", "network")]
        table.add_row(row["group"], row["scene"][:34], *(f"{x:.3f}" for x in figures))
    console.print(table)
    for group, of in found["groups"].items():
        console.print(
            f"{group}, {of['scenes']} scenes, network : best classical method of each: ERGAS {of['mean ergas']} "
            f"(worst {of['worst ergas']}), SAM {of['mean sam']} (worst {of['worst sam']}); lost: "
            + (", ".join(of["lost"]) or "none")
        )


def _made(settings: FusionSettings) -> dict[str, Any]:
    kept = ("steps", "batch", "rate", "seed", "variation", "loss", "precision", "truth_px")
    return {
        "by": "make leave-one-out",
        "network": asdict(settings.network),
        **{key: getattr(settings, key) for key in kept},
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


if __name__ == "__main__":
    main()
