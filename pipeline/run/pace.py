"""How much time a run has, and how long before it has to stop."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from difffusr.pipeline.config import deadline_at

if TYPE_CHECKING:
    from difffusr.pipeline.chips import Batch
    from difffusr.pipeline.config import RunConfig


class Pace:
    """How long what is in flight takes to be staged and written, by what took longest so far."""

    #: Seconds beyond that: workers hear of a stop within one or two, and the driver has its own last words to write.
    MARGIN_S = 5.0

    def __init__(self) -> None:
        self._resolve = self._stage = self._shard = 0.0

    def chips(self, batch: Batch) -> None:
        """A call's chips have come through, columns as `chip_dataset` has them."""
        self._resolve = max(self._resolve, float(batch["resolve_s"].sum()))
        self._stage = max(self._stage, float(batch["stage_s"].sum()))

    def shard(self, seconds: float) -> None:
        """A shard has taken so long."""
        self._shard = max(self._shard, seconds)

    @property
    def lead_s(self) -> float:
        """Seconds from the wish to stop until everything in flight has come to rest: an actor may have two batches on
        its device and one that is staged; a shard may have begun with the last."""
        return self.MARGIN_S + max(2 * self._resolve + self._stage, self._shard)


def deadline_of(config: RunConfig) -> float | None:
    """When a run that begins now has to have ended, seconds since 1970."""
    return None if config.deadline is None else deadline_at(config.deadline, dt.datetime.now(dt.UTC)).timestamp()
