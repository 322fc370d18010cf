"""What a run tells whoever watches it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a run tells whoever watches it."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage begins; `done` of its `total` steps were done before."""

    def advance(self, stage: str) -> None:
        """One more step of a stage is done."""
