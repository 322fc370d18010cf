"""Pictures of a training: the curves of its losses, and contact sheets of held-out places."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from difffusr.pipeline.weights.training.samples import Sample

#: Columns of losses.csv that are not losses.
_NOT_LOSSES: Final = ("step", "rate", "seconds")

#: Measures of validation.csv that are drawn.
_MEASURES: Final = ("bicubic", "sample+bp", "fused+bp")

#: Most points of a curve; each is a mean.
_POINTS: Final = 600


def draw_curves(losses: Path, validation: Path, path: Path, decibels: Sequence[str] = ()) -> None:
    """The losses of a training over its steps, one panel a term, and its scores on held-out places.

    The axis of a loss is logarithmic, except for terms in `decibels`, which are logarithms already.
    """
    with losses.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    terms = [name for name in rows[0] if name not in _NOT_LOSSES]
    scores = _scores(validation)
    panels = len(terms) + bool(scores)
    columns = min(3, panels)
    figure = Figure(figsize=(5 * columns, 3.4 * -(-panels // columns)), layout="constrained")
    step = np.array([float(row["step"]) for row in rows])
    for i, term in enumerate(terms):
        axes = figure.add_subplot(-(-panels // columns), columns, i + 1)
        value = np.array([float(row[term]) for row in rows])
        few = len(step) < 100
        axes.plot(step, value, color="tab:blue", alpha=1.0 if few else 0.25, linewidth=1.2 if few else 0.7)
        if not few:
            axes.plot(*_thinned(step, value), color="tab:blue", linewidth=1.5)
        axes.set(title=term, xlabel="step", ylabel="dB against bicubic" if term in decibels else "loss")
        if term not in decibels and (value > 0).all():
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(_plain)
            axes.yaxis.set_minor_formatter(_plain if value.max() < 15 * value.min() else NullFormatter())
        axes.grid(True, which="both", alpha=0.3)
    if scores:
        axes = figure.add_subplot(-(-panels // columns), columns, panels)
        for name, points in scores.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        axes.set(title="held-out places", xlabel="step", ylabel="PSNR (dB)")
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize=7)
    _save(figure, path, 110)


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _thinned(step: NDArray[np.float64], value: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of blocks of steps: few enough to see a trend."""
    blocks = np.array_split(np.arange(len(step)), min(len(step), max(1, min(_POINTS, len(step) // 10))))
    return np.array([step[b].mean() for b in blocks]), np.array([value[b].mean() for b in blocks])


def _scores(validation: Path) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) of the drawn measures, by set and measure."""
    found: dict[str, list[tuple[int, float]]] = {}
    with validation.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["measure"] in _MEASURES:
                name = f"{row['set']}, {row['measure']}"
                found.setdefault(name, []).append((int(row["step"]), float(row["value"])))
    return found


def draw_sheet(samples: Sequence[Sample], path: Path, title: str) -> None:
    """A contact sheet: a row a sample, a column a label, every row stretched as its last image (the truth) needs."""
    labels = list(samples[0].images)
    figure = Figure(figsize=(3 * len(labels), 3.15 * len(samples) + 0.5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(samples), len(labels), squeeze=False)
    for row, sample in zip(grid, samples, strict=True):
        low, high = np.percentile(sample.images[labels[-1]].numpy(), [0.5, 99.5])
        for axes, (label, image) in zip(row, sample.images.items(), strict=True):
            shown = np.clip((image.permute(1, 2, 0).numpy() - low) / max(high - low, 1e-3), 0, 1)
            axes.imshow(shown, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(label if axes is not row[0] else f"{label} · {sample.name}", fontsize=7)
    _save(figure, path, 100)


def _save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a picture atomically: viewers never see half of one."""
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=dpi, format="png")
    partial.replace(path)
