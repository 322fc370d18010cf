"""How a run, a plan or a calibration reports its steps to the caller: the command line draws bars of them."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the steps of stages. `RunStatus` is what is written down of them for others."""

    def start(self, stage: str, total: int, done: int = 0) -> None:
        """A stage begins; `done` of its `total` steps were done before."""

    def advance(self, stage: str) -> None:
        """One more step of a stage is done."""
