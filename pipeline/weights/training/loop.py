"""The training loop, the same for both networks and for one or many workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from difffusr.kernels.learning import move_average, warm_cosine
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.weights.training.checkpoint import export, read_checkpoint, write_checkpoint
from difffusr.pipeline.weights.training.draws import Seeds
from difffusr.pipeline.weights.training.record import Recorder
from difffusr.pipeline.weights.training.samples import Sample

if TYPE_CHECKING:
    from difffusr.pipeline.weights.training.settings import Training


class DivergedError(DifffusrError):
    """The loss is no longer a finite number, on every worker."""


class Task(Protocol):
    """What is learned, from which data, and how it is validated.

    Attributes:
        name: "stage1" or "fusion": also the name of the exported file.
        terms: names of the terms of the loss.
        decibels: those that are in decibels; may include "total".
        betas: of the optimiser (AdamW).
        waits: whether `batch` waits for files. Known after `build`.
        learning, average: the networks that learn, and their averaged weights for inference. Made by `build`.
    """

    @property
    def name(self) -> str: ...
    @property
    def terms(self) -> tuple[str, ...]: ...
    @property
    def decibels(self) -> tuple[str, ...]: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def waits(self) -> bool: ...
    @property
    def learning(self) -> nn.Module: ...
    @property
    def average(self) -> nn.Module: ...

    def build(self) -> None:
        """Make the networks, the same on every worker, and find the data."""

    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of the optimiser: "params", and optionally "share", of the learning rate."""

    def batch(self, step: int, rank: int) -> Any:
        """What a worker learns from in a step, on its device; depends only on seed, step and rank."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars: "total", whose gradient is followed, and the terms."""

    def settle(self) -> None:
        """After a step: bring the weights back to what the network's construction asks of them."""

    def weights(self) -> Mapping[str, Tensor]:
        """The learning weights under the names of `average`."""

    def validate(self, thorough: bool, /) -> dict[str, dict[str, float]]:
        """Scores of `average` on held-out places, by set and measure; of all of them if `thorough`."""

    def samples(self) -> list[Sample]:
        """Held-out places as measured, enlarged, predicted and true."""

    def facts(self) -> dict[str, str]:
        """What the exported weights state about themselves."""


@dataclass(frozen=True)
class Context:
    """One of the workers that train together; alone by default.

    `told_to_stop` is called after every step; when it is true on the first worker, all stop after the same step.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    told_to_stop: Callable[[], bool] = lambda: False

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every worker the mean of all workers' gradients."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, values: Sequence[float]) -> tuple[list[float], bool]:
        """The mean of all workers' values, and whether the first was told to stop."""
        stop = self.rank == 0 and self.told_to_stop()
        if self.world == 1:
            return list(values), stop
        both = torch.tensor([*values, float(stop)], dtype=torch.float64, device=self.device)
        dist.all_reduce(both)
        *sums, stops = both.tolist()
        return [value / self.world for value in sums], stops > 0

    def gather(self, value: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """All workers' values, on the first; empty elsewhere."""
        if self.world == 1:
            return [value]
        every: list[Any] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(value, every)
        return every or []


class Learner:
    """The optimiser of a task, and what one step does."""

    def __init__(self, task: Task, settings: Training, context: Context) -> None:
        self._task, self._settings, self._context = task, settings, context
        groups = task.groups()
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimiser = torch.optim.AdamW(
            groups,
            lr=settings.rate,
            betas=task.betas,
            weight_decay=settings.weight_decay,
            fused=True if context.device.type == "cuda" else None,
        )

    def step(self, step: int, batch: Any, warm: float, done: float) -> dict[str, Tensor]:
        """Learn from a batch; returns its losses and the gradient's norm, scalars on the device.

        `warm`, `done`: how far the warm-up and the training have come, as shares.
        """
        task, settings, context = self._task, self._settings, self._context
        for group in self.optimiser.param_groups:
            group["lr"] = group.get("share", 1.0) * settings.rate * warm_cosine(warm, done)
        torch.manual_seed(Seeds(settings.seed, step, context.rank).number())
        losses = task.losses(batch)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        context.average_gradients(self._parameters)
        losses["norm"] = nn.utils.clip_grad_norm_(self._parameters, settings.clip)
        self.optimiser.step()
        task.settle()
        move_average(task.average, task.weights(), min(settings.ema, (1 + step) / (10 + step)))
        return losses


def values_of(losses: Mapping[str, Tensor]) -> list[float]:
    """Scalars on a device as numbers, in one transfer."""
    return torch.stack([loss.detach().float() for loss in losses.values()]).tolist()


def check_finite(step: int, values: Sequence[float]) -> None:
    """Raise DivergedError if one of the losses of a step is no number."""
    if not all(map(math.isfinite, values)):
        raise DivergedError(f"step {step}: the loss is not a number any more; lower rate or clip and start again")


def train(task: Task, settings: Training, context: Context) -> int:
    """Train from the last checkpoint in `settings.out`, or from the start; returns the steps done.

    A training that was interrupted, even killed, continues with the same losses: what step s draws on worker r depends
    on (seed, s, r) alone, and a checkpoint holds everything else. This needs the same number of workers.

    Raises DivergedError if the loss is no longer a finite number.
    """
    out = Path(settings.out)
    task.build()
    learner = Learner(task, settings, context)
    optimiser = learner.optimiser
    first, spent = read_checkpoint(out, task.learning, task.average, optimiser, context.rank)
    terms = ("total", *task.terms, "norm")
    recorder = Recorder(out, terms, first, task.decibels) if context.rank == 0 else None
    started = time.monotonic() - spent
    step, stop = first, False
    for step, batch in _batches(task, settings, context, first):
        losses = learner.step(step, batch, step / settings.warm_up, (step + 1) / settings.steps)
        step += 1
        values, stop = context.agree(values_of(losses))
        check_finite(step, values)
        if recorder:
            recorder.losses(step, dict(zip(losses, values, strict=True)), optimiser, time.monotonic() - started)
            _look(task, settings, recorder, step)
        if stop or step == settings.steps or step % settings.checkpoint_every == 0:
            buffers = context.gather({name: x.cpu() for name, x in task.learning.named_buffers()})
            if recorder:
                recorder.flush()
                spent = time.monotonic() - started
                write_checkpoint(out, step, spent, task.learning, task.average, optimiser, buffers[1:])
        if stop:
            break
    if recorder:
        recorder.close()
        if step >= settings.steps:
            facts = {"kind": task.name, "steps": str(step), **task.facts()}
            export(out / f"{task.name}.safetensors", task.average, facts)
    return step


def _look(task: Task, settings: Training, recorder: Recorder, step: int) -> None:
    """Validate and draw samples when due; thoroughly at the end."""
    last = step == settings.steps
    if last or step % settings.validate_every == 0:
        recorder.scores(step, task.validate(last))
    if last or step % settings.samples_every == 0:
        recorder.samples(step, task.samples())


def _batches(task: Task, settings: Training, context: Context, first: int) -> Iterator[tuple[int, Any]]:
    """(step, batch) of all steps to come. A GPU does not wait for files: the next are read while it works."""
    if context.device.type == "cpu" or not task.waits:
        yield from ((step, task.batch(step, context.rank)) for step in range(first, settings.steps))
        return
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(task.batch, first, context.rank)
        for step in range(first, settings.steps):
            batch = coming.result()
            if step + 1 < settings.steps:
                coming = ahead.submit(task.batch, step + 1, context.rank)
            yield step, batch
