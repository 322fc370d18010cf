"""Runs a training on Ray Train: one or many workers, restarted when they are lost, and a watcher of their progress."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import ray
import torch

from difffusr.pipeline.config import ComputeSection, RunConfig
from difffusr.pipeline.engine import cluster
from difffusr.pipeline.ground.errors import ConfigError, DifffusrError
from difffusr.pipeline.ground.urls import first_line
from difffusr.pipeline.weights.training.checkpoint import sole_writer
from difffusr.pipeline.weights.training.fusion import FusionTask
from difffusr.pipeline.weights.training.reading import find_all
from difffusr.pipeline.weights.training.scenes import load_scenes
from difffusr.pipeline.weights.training.settings import FusionSettings, SuperResolutionSettings, Training
from difffusr.pipeline.weights.training.super_resolution import SuperResolutionTask, starting_weights

#: Seconds between two looks at the table of losses, and seconds that a training may take to stop in order.
_LOOK_EVERY_S, _STOP_WITHIN_S = 0.2, 60.0

#: Modules that only workers import; `pip install 'difffusr[train]'` brings them.
_EXTRA = ("matplotlib", "tensorboard", "tensorboardX")


class Watcher(Protocol):
    """Follows a training, for example with a progress bar."""

    def at(self, step: int, steps: int, losses: dict[str, float]) -> None:
        """`step` of `steps` are done; the losses of the last, by term."""


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        step: steps done; fewer than asked for if it was stopped.
        weights: the exported file; None if it was stopped.
        out: the folder with curves, samples and checkpoint.
    """

    step: int
    weights: Path | None
    out: Path


def run_training(settings: Training, watcher: Watcher) -> Trained:
    """Train until all steps are done, or until KeyboardInterrupt. Continues from the last checkpoint.

    Raises:
        DifffusrError: data, folder or cluster cannot be used, or the workers fail for good.
        ModuleNotFoundError: a package of the extra `train` is not installed.
    """
    _check_extra()
    out = Path(settings.out)
    if "://" in settings.out:
        raise ConfigError(f"out: found {settings.out!r}, expected a folder that every worker sees")
    _check_data(settings)
    with sole_writer(out):
        for left in (".stop", ".failed"):
            (out / left).unlink(missing_ok=True)
    with cluster(RunConfig.model_construct(compute=ComputeSection(address=settings.workers.address))):
        _check_room(settings)
        stopped = _follow(settings, watcher)
    (out / ".stop").unlink(missing_ok=True)
    step, _ = _last_line(out)
    weights = None if stopped and step < settings.steps else out / f"{_name(settings)}.safetensors"
    return Trained(step, weights, out)


def train_here(settings: Training) -> Path:
    """Train in this process, without Ray and on the CPU; as resumable as `run_training`. Returns the exported file.

    Raises DifffusrError: data or folder cannot be used, or the loss is no longer a finite number.
    """
    from difffusr.pipeline.weights.training.loop import Context, train

    torch.set_flush_denormal(True)
    with sole_writer(Path(settings.out)):
        train(task_of(settings, torch.device("cpu")), settings, Context())
    return Path(settings.out) / f"{_name(settings)}.safetensors"


def _check_extra() -> None:
    """Raise ModuleNotFoundError now rather than in a worker."""
    for name in _EXTRA:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _check_data(settings: Training) -> None:
    """Find the data before any worker is started: what is wrong with them shows at once."""
    if isinstance(settings, SuperResolutionSettings):
        find_all(settings.data, Path(settings.root))
        starting_weights(settings)
    elif isinstance(settings, FusionSettings):
        load_scenes(settings.data, Path(settings.root))


def _check_room(settings: Training) -> None:
    """Raise ConfigError if this machine has fewer cores or GPUs than the workers ask for: they would wait forever.

    A cluster elsewhere may grow.
    """
    workers, there = settings.workers, ray.cluster_resources()
    for key, name, each in (("cpus", "CPU", workers.cpus), ("gpu", "GPU", int(workers.gpu))):
        if workers.address is None and each * workers.count > there.get(name, 0):
            raise ConfigError(
                f"workers.{key}: {workers.count} × {each} {name} asked for, this machine has {int(there.get(name, 0))}"
            )


def _follow(settings: Training, watcher: Watcher) -> bool:
    """Train and report progress to the watcher; True if it was stopped from outside."""
    from ray.train import TrainingFailedError

    failed: list[Exception] = []

    def fit() -> None:
        try:
            _fit(settings)
        except (TrainingFailedError, RuntimeError, ray.exceptions.RayError) as error:
            failed.append(error)

    thread = Thread(target=fit, daemon=True)
    thread.start()
    stopped = False
    try:
        while thread.is_alive():
            thread.join(_LOOK_EVERY_S)
            watcher.at(*_progress(settings))
    except KeyboardInterrupt:
        stopped = True
        (Path(settings.out) / ".stop").touch()
        thread.join(_STOP_WITHIN_S)
    said = Path(settings.out) / ".failed"
    if said.exists() and not stopped:
        raise DifffusrError(said.read_text())
    if failed and not stopped:
        raise _explained(failed[0])
    return stopped


def _fit(settings: Training) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers = settings.workers
    resources = {"CPU": float(workers.cpus)} | ({"GPU": 1.0} if workers.gpu else {})
    TorchTrainer(
        _worker,
        train_loop_config={"settings": settings},
        scaling_config=ScalingConfig(num_workers=workers.count, use_gpu=workers.gpu, resources_per_worker=resources),
        run_config=RunConfig(
            name="ray", storage_path=settings.out, failure_config=FailureConfig(max_failures=workers.restarts)
        ),
    ).fit()


def _worker(given: dict[str, Any]) -> None:
    """What each of Ray Train's workers does."""
    import ray.train
    from ray.train.torch import get_device

    from difffusr.pipeline.weights.training.loop import Context, DivergedError, train

    settings: Training = given["settings"]
    torch.set_num_threads(settings.workers.cpus)
    torch.set_flush_denormal(True)
    about = ray.train.get_context()
    device = get_device() if settings.workers.gpu else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    stop = Path(settings.out) / ".stop"
    context = Context(about.get_world_rank(), about.get_world_size(), device, stop.exists)
    task = task_of(settings, device)
    try:
        if context.rank:
            train(task, settings, context)
        else:
            with sole_writer(Path(settings.out)):
                train(task, settings, context)
    except DifffusrError as error:
        # An error that every worker meets is no reason to restart them.
        if context.world > 1 and not isinstance(error, DivergedError):
            raise
        (Path(settings.out) / ".failed").write_text(str(error))


def task_of(settings: Training, device: torch.device) -> Any:
    """The `loop.Task` that settings describe."""
    if isinstance(settings, SuperResolutionSettings):
        return SuperResolutionTask(settings, device)
    assert isinstance(settings, FusionSettings)
    return FusionTask(settings, device)


def _name(settings: Training) -> str:
    return "stage1" if isinstance(settings, SuperResolutionSettings) else "fusion"


def _progress(settings: Training) -> tuple[int, int, dict[str, float]]:
    step, losses = _last_line(Path(settings.out))
    return step, settings.steps, losses


def _last_line(out: Path) -> tuple[int, dict[str, float]]:
    """Step and columns of the last line of losses.csv; 0 and nothing before the first."""
    path = out / "losses.csv"
    if not path.exists():
        return 0, {}
    with path.open("rb") as file:
        header = file.readline().decode()
        file.seek(max(file.tell(), os.path.getsize(path) - 4096))
        lines = [line for line in file.read().decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        return 0, {}
    names, values = next(csv.reader([header])), next(csv.reader(lines[-1:]))
    if len(names) != len(values):
        return 0, {}
    return int(values[0]), {name: float(value) for name, value in zip(names[1:], values[1:], strict=True)}


def _explained(error: Exception) -> DifffusrError:
    """The cause of a failure of the workers, as one line."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            inner = getattr(cause, "cause", None) or cause.__cause__
            if isinstance(cause, DifffusrError):
                return cause
            if isinstance(inner, DifffusrError):
                return inner
            cause = inner if inner is not cause else None
    logging.getLogger("difffusr.training").info("%s", error)
    rank, failure = next(iter(failures.items()))
    return DifffusrError(f"the training failed on worker {rank}: {type(failure).__name__}: {first_line(failure)}")
