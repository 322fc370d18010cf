"""The record of a training: tables, curves, TensorBoard events, contact sheets."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from difffusr.pipeline.weights.training.pictures import draw_curves, draw_sheet
from difffusr.pipeline.weights.training.samples import Sample

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_SCORES: Final = ("step", "set", "measure", "value")


class Recorder:
    """Writes `losses.csv` (a line a step), `validation.csv`, `losses.png`, `samples/` and `tensorboard/` into a folder.

    A training that continues from an earlier step drops what was written after it. Without `board`, which needs
    TensorBoard, there are no events.
    """

    def __init__(
        self, out: Path, terms: Sequence[str], step: int, decibels: Sequence[str] = (), *, board: bool = True
    ) -> None:
        self._out = out
        self._decibels = decibels
        self._drawn = False
        self._terms = tuple(terms)
        out.mkdir(parents=True, exist_ok=True)
        self._losses = _Table(out / "losses.csv", ("step", *terms, "rate", "seconds"), step)
        self._scores = _Table(out / "validation.csv", _SCORES, step)
        self._board: SummaryWriter | None = None
        if board:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)

    def losses(self, step: int, losses: Mapping[str, float], optimiser: torch.optim.Optimizer, seconds: float) -> None:
        """The terms of a step, its learning rate, and the seconds of training so far."""
        rate = float(optimiser.param_groups[0]["lr"])
        self._drawn = False
        self._losses.add([step, *(losses[term] for term in self._terms), rate, round(seconds, 2)])
        self._show({f"loss/{name}": value for name, value in losses.items()} | {"rate": rate}, step)

    def scores(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Scores on held-out places, by set and measure; the curves are redrawn."""
        for name, of in scores.items():
            for measure, value in of.items():
                self._scores.add([step, name, measure, value])
            self._show({f"validation/{name}/{measure}": value for measure, value in of.items()}, step)
        self._draw()

    def samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Held-out places, as a contact sheet."""
        if samples:
            (self._out / "samples").mkdir(exist_ok=True)
            draw_sheet(samples, self._out / "samples" / f"step-{step:06d}.png", f"step {step:,}")

    def flush(self) -> None:
        """Write everything so far to disk, before a checkpoint relies on it."""
        self._losses.flush()
        self._scores.flush()
        if self._board:
            self._board.flush()

    def close(self) -> None:
        """Draw the curves a last time if they are out of date, and close the files."""
        self.flush()
        if not self._drawn:
            self._draw()
        if self._board:
            self._board.close()

    def _show(self, values: Mapping[str, float], step: int) -> None:
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _draw(self) -> None:
        draw_curves(self._out / "losses.csv", self._out / "validation.csv", self._out / "losses.png", self._decibels)
        self._drawn = True


class _Table:
    """A CSV file that grows by lines; its first column is the step. Lines after `step` are dropped at the start."""

    def __init__(self, path: Path, header: Sequence[str], step: int) -> None:
        kept: list[list[str]] = []
        if path.exists():
            with path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= step]
        partial = path.with_suffix(".tmp")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([list(header), *(row for row in kept if len(row) == len(header))])
        partial.replace(path)
        self._file = path.open("a", newline="")
        self._writer = csv.writer(self._file)

    def add(self, row: Sequence[object]) -> None:
        """Append a line; readers of the file see it at once."""
        self._writer.writerow(row)
        self._file.flush()

    def flush(self) -> None:
        """Write to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
