"""What runs have left in a cube's staging folder; any of it may be deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from difffusr.pipeline.geo import ShardIndex
from difffusr.pipeline.ground.errors import StoreError
from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.plan import StoredPlan, read_plan
from difffusr.pipeline.plan.balance import Balanced, read_balance
from difffusr.pipeline.publish import Publication, history
from difffusr.pipeline.storage import Storage, read_document
from difffusr.pipeline.watch import RunStatus, read_status

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RunRecords:
    """What the runs of one period have left.

    Attributes:
        plan: the plan of what readers see; None if it is deleted.
        balanced: what that plan does to scenes; None for nothing, or if it is deleted.
        run: `report.json` of the last run; empty if it is deleted.
        progress: of that run.
        notes: what is deleted or cannot be read.
    """

    plan: StoredPlan | None
    run: Mapping[str, Any]
    progress: RunStatus | None
    notes: tuple[str, ...]
    balanced: Balanced | None = None

    @classmethod
    def of(
        cls, folder: Storage, days: tuple[date, date], publications: Sequence[Publication], *, with_plan: bool = True
    ) -> RunRecords:
        """Read the folder of a period's runs.

        Args:
            days: first and last one of the period.
            publications: of the cube, newest first.
            with_plan: whether a plan of chips and scenes is looked for: a cube of one CRS has none.
        """
        notes = []
        there, why = _try(lambda: with_plan and folder.exists("published/manifest.json"))
        plan, balanced = None, None
        if not with_plan:
            pass
        elif not there:
            notes.append(f"The plan is not at {bare_href(folder.url)}{f' ({why})' if why else ''}.")
        elif is_rolled_back(publications, f"{days[0]} – {days[1]}"):
            notes.append("Readers see an earlier publication than the kept plan's, so the plan is not used.")
        else:
            plan, why = _try(lambda: read_plan(folder, "published"))
            notes += [f"The plan cannot be read: {why}"] if why else []
            balanced, why = _try(lambda: read_balance(folder.child("published")))
            notes += [f"The balance of the scenes cannot be read: {why}"] if why else []
        run, why = _try(lambda: _run_report(folder) if folder.exists("report.json") else {})
        notes += [f"The last run's report cannot be read: {why}"] if why else []
        progress, why = _try(lambda: read_status(folder))
        notes += [f"The last run's progress cannot be read: {why}"] if why else []
        return cls(plan, run or {}, progress, tuple(notes), balanced)

    @property
    def planned_shards(self) -> list[tuple[int, ShardIndex]] | None:
        """Zone and place of the plan's shards; None without a plan."""
        if self.plan is None:
            return None
        shards = self.plan.shards
        places = zip(shards.epsg.tolist(), shards.row.tolist(), shards.col.tolist(), strict=True)
        return [(epsg, ShardIndex(row, col)) for epsg, row, col in places]


class _RunReport(BaseModel):
    """What is shown of it; the rest is kept beside it."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    name: str = ""
    chips: dict[str, int] = {}
    shards: dict[str, int] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}


def _run_report(folder: Storage) -> Mapping[str, Any]:
    return read_document(folder, "report.json", _RunReport, "the next run writes it").model_dump(exclude_unset=True)


def read_publications(staging: Storage) -> tuple[tuple[Publication, ...], tuple[str, ...]]:
    """The publications of a cube, newest first; or none, and why."""
    seen, why = _try(lambda: tuple(history(staging)))
    if seen:
        return seen, ()
    return (), (f"The history of publications is not at {bare_href(staging.url)}{f' ({why})' if why else ''}.",)


def is_rolled_back(publications: Sequence[Publication], period: str) -> bool:
    """Whether readers see an older publication of a period than its latest.

    Args:
        publications: newest first.
        period: as publications name it.
    """
    states: dict[int, dict[str, int]] = {}
    state: dict[str, int] = {}
    latest = 0
    for record in reversed(publications):
        if record.restores is not None:
            state = dict(states.get(record.restores, {}))
        else:
            state = {**state, record.period: record.number}
            latest = record.number if record.period == period else latest
        states[record.number] = state
    return state.get(period, 0) != latest


def _try(do: Callable[[], T]) -> tuple[T | None, str]:
    """The result, or None and why there is none."""
    try:
        return do(), ""
    except (StoreError, ValueError) as error:
        return None, str(error)
