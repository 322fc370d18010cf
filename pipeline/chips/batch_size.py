"""How many chips the models take at a time: `compute.batch`, or, where that is `auto`, what the actors agree on.

On CPUs a chip's bits do not depend on its batch; `auto` is one chip for each core of an actor. On a GPU its last digits
do, so all actors of a run on one kind of GPU, and whoever resumes it, use one number. Nobody but the actors needs it:

1. The driver cuts the chips into calls of `LARGEST`. It asks no GPU for anything, and no worker imports torch for it.
2. An actor that starts looks into the run's folder for what was agreed on for its kind of GPU, its weights and its
   sides of chips (`batch/….json`). If nothing was, it counts, without the GPU, what batches take (`LiveBytes`), and
   halves `LARGEST` until that is within `SHARE` of the GPU's memory.
3. It runs two batches of no image, one behind the other. An actor does that anyway, to record the networks' graph; here
   it is also the trial: what does not fit is halved before there is a chip to lose.
4. It writes the number down unless another actor was faster, whose number it then takes. A smaller one is tried again.
   A larger one, or a remembered one that does not fit any more, is a warning: this actor's chips may differ from the
   others' in the last digits.

An actor splits a call into batches of the agreed size, and fills up the last one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field

from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.storage import Storage, read_document

log = logging.getLogger("difffusr.batch")

#: Chips at a time on a GPU, at most. On an H100 with the published sizes batches of 16 chips of 144 px were 4 % faster
#: than batches of 8 (9.7 instead of 9.3 chips/s, bfloat16, as one graph, 26 November 2026): the GPU is full, and larger
#: ones would only make what is under way larger, and lose more with a worker.
LARGEST = 16

#: The share of a GPU's memory that is planned with: an allocator leaves gaps, and libraries have work spaces.
SHARE = 0.8

#: Bytes of a process on a GPU before it has a tensor there: CUDA's context, the libraries' kernels.
CONTEXT = 1 << 30


def chips_of_a_call(config: RunConfig, gpus: float) -> int:
    """Chips that an actor is given at a time.

    Args:
        gpus: of each actor.
    """
    compute = config.compute
    if compute.batch == "auto" and gpus:
        return LARGEST
    if not gpus and (idle := compute.cpus_per_actor - compute.batch_on_cores) > 0:
        log.warning("compute.batch %s leaves %d cores of each actor idle: a chip has one core", compute.batch, idle)
    return compute.batch_on_cores


@dataclass(frozen=True)
class _Agreed:
    """What was agreed on: the size of batches."""

    batch: Annotated[int, Field(ge=1)]


class Agreement(NamedTuple):
    """Where the actors of a run agree on the size of batches, on one kind of GPU.

    Attributes:
        staging: the run's folder.
        about: what it depends on besides the GPU.
        gpus: of each actor.
    """

    staging: Storage
    about: tuple[str, ...]
    gpus: float
    device: str = ""
    bytes: float = 0.0

    @classmethod
    def of(cls, config: RunConfig, staging: Storage) -> Agreement:
        """Of a run's actors, on no GPU yet."""
        gpus = config.compute.gpus_per_actor
        about = f"{config.grid.chip_px}px", f"{config.model.uncertainty_samples}samples"
        return cls(staging, about, 1.0 if gpus == "auto" else min(float(gpus), 1.0))

    def on(self, fingerprint: str, execution: str, device: str, memory: int) -> Agreement:
        """Of the actors on one kind of GPU.

        Args:
            fingerprint: of the model.
            execution: of the networks.
            device: its name.
            memory: its bytes.
        """
        about = fingerprint[:16], *self.about, execution, f"{self.gpus:g}gpu", device, str(memory)
        return self._replace(about=about, device=device, bytes=SHARE * self.gpus * memory - CONTEXT)

    def remembered(self) -> int | None:
        """What was agreed on; None if nothing was.

        Raises:
            StoreError: the folder cannot be read, or what it says is damaged.
        """
        if not self.staging.exists(self._name):
            return None
        return read_document(self.staging, self._name, _Agreed, "delete it, and run again").batch

    def settled(self, batch: int) -> int:
        """Agree on a size that was tried, unless the actors have agreed before; returns what they have agreed on.

        Raises:
            StoreError: as `remembered`, or the folder cannot be written.
        """
        if self.staging.create(self._name, json.dumps({"batch": batch}).encode()):
            return batch
        return self.remembered() or batch

    @property
    def _name(self) -> str:
        return f"batch/{'_'.join(re.sub(r'[^A-Za-z0-9.]+', '-', part) for part in self.about)}.json"


def fitting(needed: Callable[[int], int], memory: float) -> int:
    """The largest size, by halves of `LARGEST`, whose batches are within a memory; 1 where not even one chip is.

    Args:
        needed: bytes of batches of a size.
        memory: bytes.
    """
    size = LARGEST
    while size > 1 and needed(size) > memory:
        size //= 2
    return size
