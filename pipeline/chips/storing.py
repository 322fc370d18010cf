"""The step that stages: super-resolved chips written to the staging folder."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from difffusr.pipeline.chips.batch import TO_STAGE, Batch
from difffusr.pipeline.chips.staging import StagedChip, write_chip
from difffusr.pipeline.engine import pin_to
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.storage import Storage
from difffusr.pipeline.watch import meters_of


def stage_rows(batch: Batch, staging: Storage, board: Any, run: tuple[str, str]) -> Batch:
    """Write super-resolved chips to the staging folder.

    Args:
        batch: columns as `resolver.PinnedResolver` returns them.
        staging: the run's folder.
        board: handle of the run's board.
        run: name and period, for the meters.

    Returns:
        `position`, `name`, `fate`, `skipped`, `unread`, `read_s`, `resolve_s` of the batch, `error`, also of chips that
        could not be written, and `stage_s`, the seconds that writing took.
    """
    pin, meters = pin_to(board), meters_of(*run)
    errors = [str(error) for error in batch["error"]]
    seconds = np.zeros(len(errors))
    for i, error in enumerate(errors):
        if error or batch["fate"][i] != TO_STAGE:
            continue
        begun = time.perf_counter()
        pin.at("stage", [str(batch["name"][i])])
        std, looks = (batch[name][i] if name in batch else None for name in ("std", "looks"))
        chip = StagedChip(batch["dn"][i], batch["quality"][i], batch["source"][i], std, looks)
        try:
            meters.staged(_write_patiently(staging, str(batch["object"][i]), chip))
        except StoreError as failure:
            errors[i] = str(failure)
        seconds[i] = time.perf_counter() - begun
    pin.done()
    kept = {name: batch[name] for name in ("position", "name", "fate", "skipped", "unread", "read_s", "resolve_s")}
    for i in np.flatnonzero((batch["fate"] == TO_STAGE) & (np.array(errors) == "")).tolist():
        meters.chip("read", batch["read_s"][i])
        meters.chip("super_resolve", batch["resolve_s"][i])
        meters.chip("stage", seconds[i])
    return {**kept, "error": np.array(errors, dtype=object), "stage_s": seconds}


def _write_patiently(staging: Storage, name: str, chip: StagedChip) -> int:
    """Write a chip, in three attempts with pauses; returns the object's size in bytes.

    Raises:
        StoreError: the store refuses each time.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(StoreError),
        stop=stop_after_attempt(3),
        wait=wait_random_exponential(multiplier=0.5, max=8),
    )
    try:
        return attempts(write_chip, staging, name, chip)
    except RetryError as error:
        raise StoreError(str(error.last_attempt.exception())) from None
