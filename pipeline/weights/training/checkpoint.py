"""A training on disk: the checkpoint that it continues from, and the weights that it exports."""

from __future__ import annotations

import fcntl
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from difffusr.pipeline.ground.errors import ConfigError, DifffusrError, StoreError


def write_checkpoint(
    out: Path,
    step: int,
    seconds: float,
    learning: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    buffers: Sequence[Mapping[str, Tensor]],
) -> None:
    """Write `out/checkpoint/state.pt` atomically: a process killed meanwhile leaves the previous one.

    `buffers`: of the other workers' learning networks (batch statistics, queue), in the order of their ranks.
    Raises StoreError if there is no space or no permission.
    """
    folder = out / "checkpoint"
    state = {
        "step": step,
        "seconds": seconds,
        "learning": learning.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "buffers": [dict(of) for of in buffers],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "state.tmp").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        (folder / "state.tmp").replace(folder / "state.pt")
    except OSError as error:
        raise StoreError(f"{folder}: the checkpoint cannot be written: {error.strerror or error}") from None


def read_checkpoint(
    out: Path, learning: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, rank: int = 0
) -> tuple[int, float]:
    """Load the checkpoint of a folder if there is one; returns steps and seconds done.

    Raises ConfigError if the checkpoint is damaged, holds code, or is of another network.
    """
    path = out / "checkpoint" / "state.pt"
    if not path.exists():
        return 0, 0.0
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        raise ConfigError(f"out: {path} is damaged, or holds more than tensors; choose another folder") from None
    try:
        learning.load_state_dict(state["learning"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
    except (KeyError, RuntimeError, ValueError):
        raise ConfigError(f"out: {out} holds a training of another network; choose another folder") from None
    own = dict(learning.named_buffers())
    for name, value in (state["buffers"][rank - 1] if 0 < rank <= len(state["buffers"]) else {}).items():
        own[name].copy_(value)
    return int(state["step"]), float(state["seconds"])


def export(path: Path, module: nn.Module, facts: Mapping[str, str]) -> Path:
    """Write a network's weights atomically as half-precision safetensors; `facts` go into the header."""
    tensors = {key: x.half() if x.is_floating_point() else x for key, x in module.state_dict().items()}
    partial = path.with_suffix(".tmp")
    try:
        partial.write_bytes(save({key: x.cpu().contiguous().clone() for key, x in tensors.items()}, dict(facts)))
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: the weights cannot be written: {error.strerror or error}") from None
    return path


@contextmanager
def sole_writer(out: Path, patience_s: float = 60.0) -> Iterator[None]:
    """Keep every other training out of the folder; waits up to `patience_s` for one that is being killed.

    The lock file holds the writer's process id.

    Raises DifffusrError if another training runs in it, StoreError if the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a")
    except OSError as error:
        raise StoreError(f"out: {out}: cannot be written: {error.strerror or error}") from None
    with lock:
        until = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise DifffusrError(f"out: {out}: another training is running in this folder") from None
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
