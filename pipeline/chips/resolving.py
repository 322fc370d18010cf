"""The step that super-resolves, as the driver sends it to its actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the driver sends this class, and imports nothing for it
    from difffusr.pipeline.chips.batch import Batch
    from difffusr.pipeline.config import RunConfig
    from difffusr.pipeline.storage import Storage


class SuperResolve:
    """The run's actor, `PinnedResolver`, whose module, and torch with it, is imported by the actors alone: the driver
    needs neither its second nor its memory."""

    def __init__(self, config: RunConfig, board: Any, staging: Storage) -> None:
        from difffusr.pipeline.chips.resolver import PinnedResolver

        self._resolver = PinnedResolver(config, board, staging)

    def __call__(self, batch: Batch) -> Batch:
        """As `PinnedResolver`."""
        return self._resolver(batch)
