"""The step that super-resolves: the run's actor, which tells the board what it is at."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from difffusr.pipeline.chips.actor import Batch, Resolved, SuperResolver
from difffusr.pipeline.chips.staging import is_staged
from difffusr.pipeline.chips.table import LEFT, STAGED, TO_STAGE
from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.engine.board import ATTEMPTS, Pin
from difffusr.pipeline.storage.objects import Storage
from difffusr.pipeline.watch.metrics import meters_of


class PinnedResolver(SuperResolver):
    """The run's actor, which tells the board what it is at.

    Calls come two at a time. The models have a thread of their own, in which they are loaded and take one batch after
    the other: that batch is what the board hears of. What is around them is done beside it, in the calls' own threads.
    """

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        self.prepare(board, staging)
        self._models.submit(SuperResolver.__init__, self, config).result()
        if ray.get_runtime_context().was_current_actor_reconstructed:
            meters_of(config.name, config.period.label).actor_restarted("death")

    def prepare(self, board: Any, staging: Storage) -> None:
        """All that there is to an actor besides its models."""
        self._pin, self._staging = Pin(board), staging
        self._models = ThreadPoolExecutor(max_workers=1, thread_name_prefix="models")

    def rate(self, size: int, chip_px: int) -> float | None:
        """As `SuperResolver`, in the models' thread."""
        return self._models.submit(SuperResolver.rate, self, size, chip_px).result()

    def __call__(self, batch: Batch) -> Batch:
        """As `SuperResolver`; a chip that no actor survives is given up, and one that is staged is not computed again.

        Ray repeats a task whose worker or node is lost, and with it chips that came through before.

        Returns:
            besides what `SuperResolver` returns, `fate` (B,): of `TO_STAGE`, `STAGED`, `LEFT`, and `resolve_s` (B,),
            the seconds that the models' thread had a chip.
        """
        resolved, fate, seconds = self._models.submit(self._resolve, batch).result()
        out = self.fetch(resolved)
        out["error"] = np.where(fate == TO_STAGE, out["error"], "")
        return {**out, "fate": fate, "resolve_s": np.full(len(fate), seconds / len(fate))}

    def _resolve(self, batch: Batch) -> tuple[Resolved, NDArray[np.uint8], float]:
        """In the models' thread: what was made of a batch, its chips' fates, the seconds that it took."""
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
            elif attempt > ATTEMPTS:
                errors[i] = _given_up(attempt)
        resolved = self.resolve({**batch, "error": np.where(fate == TO_STAGE, errors, "not to be computed")})
        self._pin.done([names[i] for i in readable] if attempts else ())
        return resolved, fate, time.perf_counter() - begun


def _given_up(attempts: int) -> str:
    return (
        f"super_resolve: given up after {attempts - 1} workers ended or stalled at it; the workers' memory may not be "
        "enough (lower compute.batch or grid.chip_px), see the log"
    )
