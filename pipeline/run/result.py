"""How a run ended, and its report."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from difffusr.pipeline.ground.errors import EXIT_DONE, EXIT_FAILED, EXIT_INCOMPLETE
from difffusr.pipeline.plan import Plan
from difffusr.pipeline.publish import Publication
from difffusr.pipeline.run.context import Run
from difffusr.pipeline.scenes import Unread
from difffusr.pipeline.watch import stage_told


@dataclass
class RunResult:
    """How a run ended.

    Attributes:
        plan: what was to be done.
        computed, reused: chips computed now, and found done or no longer needed.
        skipped: those of the computed chips that skipped the networks (`skip`).
        written, kept: shards written now, and found done.
        overviews: shards of overviews written now.
        failed: reason by chip name; these chips are missing from the cube.
        unread: by name of a chip that is to be planned anew, its scenes that could not be read.
        given_up: chips that have no other scenes than those that could not be read.
        reasons: why shards of a published period were written again: number of shards by reason.
        seconds: wall time by stage.
        work: total seconds of all workers by step: read, resolve, stage; of core: shard.
        mended: what was damaged and is as it was again: documents, coordinates, shards, shards of overviews.
        stopped: asked to stop before the end: what is done stays, nothing was published.
        why: for a run that was stopped, why.
        machine_ends: when its driver's machine is taken away, where that is why, seconds since 1970; else 0.
        publication: what readers see now, if it is new.
    """

    plan: Plan
    computed: int = 0
    skipped: int = 0
    reused: int = 0
    written: int = 0
    kept: int = 0
    overviews: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unread: dict[str, list[Unread]] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    mended: list[str] = field(default_factory=list)
    stopped: bool = False
    why: str = ""
    machine_ends: float = 0.0
    publication: Publication | None = None

    @property
    def exit_code(self) -> int:
        """0 when the cube is complete or the run was asked to stop, 1 when it stopped as its machine is taken away, 3
        when chips are missing from the cube."""
        if self.stopped and self.machine_ends:
            return EXIT_FAILED
        return EXIT_INCOMPLETE if self.failed and not self.stopped else EXIT_DONE

    @property
    def state(self) -> str:
        """`stopped`, `published`, `mended` where what was damaged is as it was again, or `unchanged` where readers see
        all of it already."""
        if self.stopped or self.publication is not None:
            return "stopped" if self.stopped else "published"
        return "mended" if self.mended else "unchanged"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long a stage takes."""
        started = time.monotonic()
        with stage_told(stage):
            yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started

    def counts(self) -> dict[str, Any]:
        """Chips and shards by what became of them, and seconds by stage, for reports."""
        return {
            "chips": {
                "computed": self.computed,
                "skipped": self.skipped,
                "reused": self.reused,
                "failed": len(self.failed),
            },
            "shards": {"written": self.written, "kept": self.kept, "overviews": self.overviews},
            "mended": len(self.mended),
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
        }


_REPORT = "report.json"


def write_report(run: Run, result: RunResult, rewritten: Mapping[str, str] | None = None) -> None:
    """Write the report into the run's folder.

    Args:
        rewritten: why, by shard, shards of a published period were written again.
    """
    report = {
        "name": run.config.name,
        "period": run.config.period.label,
        **result.counts(),
        "rewritten": dict(rewritten or {}),
        "failed": result.failed,
        "cores": os.cpu_count(),
    }
    run.staging.write(_REPORT, json.dumps(report, indent=1, sort_keys=True).encode())


def has_report(run: Run) -> bool:
    """Whether an earlier run of this folder came to its end."""
    return run.staging.exists(_REPORT)
