"""What fewer sampler steps cost: quality against evaluations of the network; a picture and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from difffusr.kernels.networks import Stage1
from difffusr.kernels.sampling import SAMPLERS, Sampling
from difffusr.kernels.weights import load_weights, shipped, shipped_sampling
from difffusr.pipeline.weights.evaluation.card import held_out_pairs
from difffusr.pipeline.weights.evaluation.data import Pair
from difffusr.pipeline.weights.evaluation.super_resolution import SAMPLE, evaluate_super_resolution

#: What `fast` may cost against `reference` at the same temperature and from the same noise.
MOST_PSNR_DB: Final = 0.1

MOST_DISTANCE: Final = 0.03

DISTANCES: Final = ("swd", "swd_scaled")

#: Steps of either solver on the curve.
_DDIM: Final = (20, 10, 8, 5, 4)

_MULTISTEP: Final = (3, 4, 5, 6, 8, 10)

#: One point of the curve: its sampling and its scores by metric.
Point = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: where the data are, and where the picture goes."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.weights.evaluation.curve", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that hr/ is in")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("notebooks/sampler-curve.png"),
        help="picture; the JSON goes into the same folder",
    )
    args = parser.parse_args(argv)
    stage1 = Stage1.from_weights(load_weights(shipped("small", "stage1")))
    own, pairs = shipped_sampling(), held_out_pairs(args.data, "sensor")
    curves = {temperature: curve(stage1, pairs, replace(own, temperature=temperature)) for temperature in _hot(own)}
    facts = {"weights": "small", "windows": len(pairs), "torch": torch.__version__}
    found = {**facts, "curves": {f"{temperature:g}": points for temperature, points in curves.items()}}
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    draw(curves, args.out)


def _hot(own: Sampling) -> tuple[float, ...]:
    """The weights' own temperature, and 1."""
    return tuple(dict.fromkeys((own.temperature, 1.0)))


def curve(stage1: Stage1, pairs: Sequence[Pair], own: Sampling) -> list[Point]:
    """Both solvers with more and fewer steps, and draft. The first point is reference, the last draft."""
    points: list[Point] = []
    for sampling in _samplings(own):
        points.append(point(stage1, pairs, sampling))
        print(f"temperature {sampling.temperature:g}, " + ", ".join(_told(points[-1], points[0])), flush=True)
    return points


def _samplings(own: Sampling) -> Iterator[Sampling]:
    for steps in _DDIM:  # the first is reference
        yield replace(own, solver="ddim", steps=steps)
    for steps in _MULTISTEP:
        yield replace(own, solver="multistep", steps=steps)
    yield own.by("draft")


def point(stage1: Stage1, pairs: Sequence[Pair], sampling: Sampling) -> Point:
    """Scores of one way to sample, after back-projection, the mean over pairs."""
    name = f"{SAMPLE} + bp"
    found = evaluate_super_resolution(stage1, pairs, sampling, {}, samples=0, crops=0, only=[name], timed=False)
    evaluations = sampling.steps - (sampling.solver == "ddim")  # its last step is left out
    scores = found.tables[0].mean[name]
    return {"solver": sampling.solver, "steps": sampling.steps, "evaluations": evaluations, **scores}


def costs(point: Point, reference: Point) -> dict[str, float]:
    """How much worse a point is than the reference: "psnr" in decibels, distances as a share; below 0 it is better."""
    worse = {name: point[name] / reference[name] - 1 for name in DISTANCES}
    return {"psnr": reference["psnr"] - point["psnr"], **worse}


def _told(point: Point, reference: Point) -> Iterator[str]:
    cost = costs(point, reference)
    yield f"{point['solver']} {point['steps']}: PSNR {point['psnr']:.2f} ({-cost['psnr']:+.3f} dB)"
    yield from (f"{name} {point[name]:.1f} ({cost[name]:+.1%})" for name in DISTANCES)
    yield f"spectrum {point['spectrum']:.2f}, residual {point['residual']:.6f}"


def draw(curves: Mapping[float, Sequence[Point]], path: Path) -> None:
    """A row of panels a temperature: PSNR, perceptual distances against the reference, consistency residual."""
    from matplotlib.figure import Figure  # of the extra "train"

    figure = Figure(figsize=(12, 3.3 * len(curves) + 0.5), layout="constrained")
    rows = figure.subplots(len(curves), 3, squeeze=False)
    for panels, (temperature, points) in zip(rows, curves.items(), strict=True):
        reference, draft = points[0], costs(points[-1], points[0])
        _lines(panels[0], points, lambda point: point["psnr"])
        for name, style, label in (("swd", "-", ", SWD"), ("swd_scaled", ":", ", SWD-E")):
            _lines(panels[1], points, partial(_cost_percent, reference, name), style, label)
        _lines(panels[2], points, lambda point: 1000 * point["residual"])
        allowed = (-MOST_PSNR_DB, 100 * MOST_DISTANCE, None)
        for axes, level, most in zip(
            panels, (reference["psnr"], 0, 1000 * reference["residual"]), allowed, strict=True
        ):
            axes.axhline(level, color="black", lw=1, ls="--", label="reference")
            if most is not None:
                axes.axhspan(level, level + most, color="tab:green", alpha=0.15, lw=0, label="fast may cost")
            axes.set(xlabel="evaluations of the network", xlim=(-1, 20), xticks=[0, 3, 5, 10, 15, 19])
            axes.grid(True, alpha=0.3)
        panels[0].set(ylabel=f"temperature {temperature:g}\nPSNR (dB)")
        panels[1].set(ylabel="distance against reference (%)", ylim=(-12, 17))
        panels[1].set_title(f"draft: SWD {draft['swd']:+.0%}, SWD-E {draft['swd_scaled']:+.0%}", fontsize=9)
        panels[2].set(ylabel="residual (0.001 reflectance)")
    labels = dict(zip(*reversed(rows[0][1].get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=len(labels), fontsize=9)
    figure.savefig(path, dpi=110)


def _cost_percent(reference: Point, name: str, point: Point) -> float:
    return 100 * costs(point, reference)[name]


def _lines(
    axes: Any, points: Sequence[Point], value: Callable[[Point], float], style: str = "-", label: str = ""
) -> None:
    """Both solvers' curves of one value, draft at no evaluations, `fast` with a ring."""
    for solver, title, color, marker in (
        ("ddim", f"DDIM{label}", "tab:gray", "s"),
        ("multistep", f"multistep{label}", "tab:blue", "o"),
        ("none", "draft", "tab:red", "D"),
    ):
        of = [point for point in points if point["solver"] == solver]
        axes.plot(
            [p["evaluations"] for p in of],
            [value(p) for p in of],
            color=color,
            marker=marker,
            ms=4,
            ls=style,
            label=title,
        )
    fast = next(point for point in points if (point["solver"], point["steps"]) == SAMPLERS["fast"])
    axes.plot(fast["evaluations"], value(fast), "o", color="tab:orange", ms=11, mfc="none", mew=2, ls="", label="fast")


if __name__ == "__main__":
    main()
