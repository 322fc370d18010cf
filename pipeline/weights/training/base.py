"""Trains both networks of `base` in a few minutes of one GPU, where little but torch is installed.

    python -m difffusr.pipeline.weights.training.packing --data DIR --out base.zip       where everything is installed
    python -m difffusr.pipeline.weights.training.base --data base.zip --out OUT --minutes 7

The time is shared between stage 1 and fusion. The learning rate follows the time, so that it ends low whatever the
speed; so the same seed does not give the same weights twice. OUT gets eight files: weights in half precision, tables of
losses, their curves, one contact sheet of held-out places, and how it was made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.weights.training.checkpoint import export
from difffusr.pipeline.weights.training.fusion import FusionTask
from difffusr.pipeline.weights.training.loop import (
    Context,
    DivergedError,
    Learner,
    Task,
    check_finite,
    values_of,
)
from difffusr.pipeline.weights.training.packing import Pack, pack_base, read_pack
from difffusr.pipeline.weights.training.pictures import draw_sheet
from difffusr.pipeline.weights.training.record import Recorder
from difffusr.pipeline.weights.training.samples import Sample
from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask

#: The share of the time that stage 1 gets.
STAGE1_SHARE: Final = 0.65

#: The share of a training in which the learning rate rises, if that is longer than the settings' `warm_up`.
_WARM: Final = 0.03

#: Steps after which the speed is stated.
_MEASURED: Final = 20

#: Rows of the contact sheet of each network.
_ROWS: Final = 6


@dataclass(frozen=True)
class Learned:
    """How a training went: steps, seconds that they took, scores on held-out places, rows of the contact sheet."""

    steps: int
    seconds: float
    scores: dict[str, dict[str, float]]
    samples: list[Sample]


def learn(
    task: Task,
    settings: Any,
    seconds: float,
    device: torch.device,
    out: Path,
    look: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Learned:
    """Train for some seconds, three looks at held-out places included: before, halfway and after.

    Weights, tables and curves are in `out` from halfway on; then and at the end `look` is called. A device so slow that
    the looks would take half of the time gets more than it.
    """
    begun = clock()
    task.build()
    learner = Learner(task, settings, Context(device=device))
    recorder = Recorder(out, ("total", *task.terms, "norm"), 0, task.decibels, board=False)
    before = clock()
    recorder.scores(0, task.validate(True))
    budget = max(seconds - (before - begun) - 3 * (clock() - before), seconds / 2)

    def looked(step: int) -> dict[str, dict[str, float]]:
        scores = task.validate(True)
        recorder.scores(step, scores)
        export(out / f"{task.name}.safetensors", task.average, {"kind": task.name, "steps": str(step), **task.facts()})
        look()
        return scores

    step, spent, halfway = 0, 0.0, False
    while not step or spent < budget:
        started, done = clock(), spent / budget
        losses = learner.step(step, task.batch(step, 0), max(step / settings.warm_up, done / _WARM), done)
        values = values_of(losses)  # waits for the device
        step += 1
        check_finite(step, values)
        spent += clock() - started
        recorder.losses(step, dict(zip(losses, values, strict=True)), learner.optimiser, spent)
        if step == _MEASURED:
            _say(f"{task.name}: {step / spent:.2f} steps/s, about {round(budget * step / spent)} steps")
        if not halfway and budget / 2 <= spent < budget:
            halfway = True
            looked(step)
    scores = looked(step)
    recorder.close()
    return Learned(step, spent, scores, task.samples()[:_ROWS])


def train_both(pack: Pack, out: Path, minutes: float, share: float, device: torch.device) -> dict[str, Any]:
    """Train stage 1, then the fusion; returns how it was made, which is in OUT/made.json as well.

    Raises DifffusrError if one of them cannot be trained; the other is trained all the same where only its loss failed.
    """
    begun = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, tuple[Task, Any]] = {
        "stage1": (SuperResolutionTask(pack.stage1, device, pack.images), pack.stage1),
        "fusion": (FusionTask(pack.fusion, device, pack.scenes), pack.fusion),
    }
    made: dict[str, Any] = {"minutes": minutes, "share_of_stage1": share} | _machine(device)
    samples: list[Sample] = []
    failed: DivergedError | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name, (task, settings) in tasks.items():
            own = 60 * minutes * (share if name == "stage1" else 1 - share)
            left = 60 * minutes - (time.monotonic() - begun)
            seconds = own if name == "stage1" else max(left, own / 2)  # where stage 1 took too long
            work = Path(folder) / name

            def keep(name: str = name, work: Path = work) -> None:
                _keep(work, out, name)

            try:
                learned = learn(task, settings, seconds, device, work, keep)
            except DivergedError as error:
                failed = failed or error
                continue
            keep()
            samples += learned.samples
            draw_sheet(samples, out / "sheet.png", f"after {learned.steps} steps")
            made[name] = {
                "steps": learned.steps,
                "seconds": round(learned.seconds, 1),
                "steps_per_s": round(learned.steps / learned.seconds, 3),
                "batch": settings.batch,
                "network": task.facts()["config"],
                "held_out": learned.scores,
                "settings": {key: value for key, value in vars(settings).items() if key != "network"},
            }
            (out / "made.json").write_text(json.dumps(made, indent=1))
            _say(f"{name}: {learned.steps} steps in {learned.seconds:.0f} s; {json.dumps(learned.scores)}")
    if failed:
        raise failed
    return made


def _keep(work: Path, out: Path, name: str) -> None:
    """Copy what a training has left so far, so that it is there if the machine is taken away."""
    for left, kept in (
        (f"{name}.safetensors",) * 2,
        ("losses.csv", f"{name}-losses.csv"),
        ("losses.png", f"{name}.png"),
    ):
        if (work / left).exists():
            shutil.copyfile(work / left, out / kept)


def _machine(device: torch.device) -> dict[str, Any]:
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return {"device": f"{device.type}, {named}", "torch": torch.__version__}


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m difffusr.pipeline.weights.training.base", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="a pack, or the folder that one would be made of")
    parser.add_argument("--out", type=Path, required=True, help="folder for what comes out")
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="of training, reading the pack included (default: 7)"
    )
    parser.add_argument("--share", type=float, default=STAGE1_SHARE, help=f"of stage 1 (default: {STAGE1_SHARE})")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or not 0 < args.share < 1:
        parser.error(f"--minutes must be above 0 and --share between 0 and 1: found {args.minutes:g}, {args.share:g}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = args.data
            if data.is_dir():
                data = Path(folder) / "base.zip"
                pack_base(args.data, data)
            train_both(read_pack(data), args.out, args.minutes, args.share, torch.device(args.device))
    except DifffusrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
