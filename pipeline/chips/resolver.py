"""The step that super-resolves: the run's actor, which tells the board what it is working on."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from difffusr.pipeline.chips.actor import Resolved, SuperResolver
from difffusr.pipeline.chips.batch import LEFT, STAGED, TO_STAGE, Batch
from difffusr.pipeline.chips.compiled import kernels_of
from difffusr.pipeline.chips.staging import is_staged
from difffusr.pipeline.config import RunConfig
from difffusr.pipeline.engine import ATTEMPTS, Pin
from difffusr.pipeline.storage import Storage
from difffusr.pipeline.watch import meters_of


class PinnedResolver(SuperResolver):
    """The run's actor, which tells the board what it is working on.

    Calls come two at a time. The models have a thread of their own, which loads them and takes one batch after the
    other; the board hears of that batch. Everything around the models runs beside it, in the calls' own threads.
    """

    #: So many actors may end or stall at a chip before it is given up.
    attempts = ATTEMPTS

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        self.prepare(board, staging)
        with kernels_of(config):
            self._models.submit(SuperResolver.__init__, self, config).result()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            meters_of(config.name, config.period.label).actor_restarted("death")

    def prepare(self, board: Any, staging: Storage) -> None:
        """Everything an actor has besides its models."""
        self._pin, self._staging = Pin(board), staging
        self._models = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")

    def __call__(self, batch: Batch) -> Batch:
        """As `SuperResolver`; a chip that killed `attempts` actors is given up, a staged one is not computed again.

        Ray repeats a task whose worker or node is lost, also for chips that were staged before.

        Returns:
            besides what `SuperResolver` returns, `fate` (B,): of `TO_STAGE`, `STAGED`, `LEFT`, and `resolve_s` (B,),
            the seconds that the models' thread had a chip.
        """
        resolved, fate, seconds = self._models.submit(self._resolve, batch).result()
        out = self.fetch(resolved)
        out["error"] = np.where(fate == TO_STAGE, out["error"], "")
        return {**out, "fate": fate, "resolve_s": np.full(len(fate), seconds / len(fate))}

    def rate(self, size: int, chip_px: int) -> float | None:
        """As `SuperResolver`, in the models' thread."""
        return self._models.submit(SuperResolver.rate, self, size, chip_px).result()

    def _resolve(self, batch: Batch) -> tuple[Resolved, NDArray[np.uint8], float]:
        """In the models' thread: the resolved batch, its chips' fates, the seconds it took."""
        begun = time.perf_counter()
        names = [str(name) for name in batch["name"]]
        readable = [i for i, error in enumerate(batch["error"]) if not error]
        errors, fate = batch["error"].copy(), np.full(len(names), TO_STAGE, np.uint8)
        if self._pin.stopping():
            fate[readable], attempts = LEFT, []
        else:
            attempts = self._pin.begin("super_resolve", [names[i] for i in readable])
        for i, attempt in zip(readable, attempts, strict=False):
            if attempt != 1 and is_staged(self._staging, str(batch["object"][i])):
                fate[i] = STAGED
            elif attempt > self.attempts:
                errors[i] = _given_up(attempt)
        resolved = self.resolve({**batch, "error": np.where(fate == TO_STAGE, errors, "not to be computed")})
        self._pin.done([names[i] for i in readable] if attempts else ())
        return resolved, fate, time.perf_counter() - begun


def _given_up(attempts: int) -> str:
    return (
        f"super_resolve: given up after {attempts - 1} workers ended or stalled at it; the workers' memory may not be "
        "enough (lower compute.batch or grid.chip_px), see the log"
    )
