"""What `run` and `status` say."""

from __future__ import annotations

import datetime as dt
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from difffusr.pipeline.config.sections import RunConfig
from difffusr.pipeline.ground.errors import DifffusrError
from difffusr.pipeline.run.result import RunResult
from difffusr.pipeline.storage.lease import holder_of
from difffusr.pipeline.storage.places import cube_staging_of, staging_of
from difffusr.pipeline.watch.pulse import PULSE_S, RunStatus, read_status

#: Failed chips that are listed; the report in the staging folder has all.
_LISTED = 20


console = Console()


errors = Console(stderr=True)


def show_result(config: RunConfig, result: RunResult, command: str) -> None:
    """How a run ended: a table, and what is to be done about what failed."""
    console.print(result_table(config, result))
    if result.stopped:
        show_stopped(command)
        return
    if not result.failed:
        return
    errors.print(
        f"{len(result.failed)} chips are missing from the cube; the next run tries them again:", highlight=False
    )
    for name, reason in sorted(result.failed.items())[:_LISTED]:
        errors.print(f"  {name}: {escape(reason)}", soft_wrap=True, highlight=False)
    if len(result.failed) > _LISTED:
        rest = len(result.failed) - _LISTED
        errors.print(
            f"  and {rest:,} more, all in {staging_of(config).url}/report.json", soft_wrap=True, highlight=False
        )


def show_stopped(command: str) -> None:
    """That a run ended because it was asked to, and how it goes on."""
    console.print(
        f"stopped as asked, nothing is lost; resume with: {command}", soft_wrap=True, highlight=False, markup=False
    )


def result_table(config: RunConfig, result: RunResult) -> Table:
    """Chips, shards, seconds and where the cube is."""
    table = Table(title=f"{config.name} · {config.period.label}", title_justify="left", show_header=False)
    table.add_row("chips", f"{result.computed:,} computed, {result.reused:,} found done, {len(result.failed):,} failed")
    made = f", {result.overviews:,} of overviews made" if result.overviews else ""
    table.add_row("shards", f"{result.written:,} written, {result.kept:,} found done{made}")
    for reason, shards in result.reasons.items():
        table.add_row("written again", f"{shards:,}: {escape(reason)}")
    table.add_row("seconds", ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in result.seconds.items()))
    table.add_row("cube", escape(config.store.url))
    table.add_row("readers see", _seen(result))
    return table


def _seen(result: RunResult) -> str:
    if result.stopped:
        return "what they saw before"
    if result.publication is None:
        return "what they saw before: nothing has changed"
    return f"publication {result.publication.number} ({result.publication.kind}, {result.publication.where})"


def show_status(config: RunConfig, command: str) -> None:
    """How far a run is, from its folder alone.

    Raises:
        DifffusrError: there is nothing to tell.
    """
    staging = staging_of(config)
    said = read_status(staging)
    if said is None:
        planned = "there is only a plan" if staging.exists("plan/manifest.json") else "there is no plan yet"
        raise DifffusrError(f"{staging.url}: {planned}; `{command}` begins the run")
    console.print(status_table(said, _liveness(config, said)))


def status_table(said: RunStatus, liveness: str) -> Table:
    """RunStatus, rate, what is left, failures by reason, GPU-hours and cost."""
    table = Table(title=f"{said.run} · {said.period}", title_justify="left", show_header=False)
    table.add_row("state", escape(f"{said.state}{f': {said.why}' if said.why else ''}"))
    table.add_row("driver", escape(liveness))
    table.add_row("chips", f"{said.chips_done:,} of {said.chips:,} done{_share(said.chips_done, said.chips)}")
    table.add_row("shards", f"{said.shards_done:,} of {said.shards:,} written{_share(said.shards_done, said.shards)}")
    if said.state == "running":
        left = said.seconds_left
        rate = f"{said.rate * 3600:,.0f} chips an hour" if said.rate else "not known yet"
        table.add_row("rate", rate)
        table.add_row("left", "not known yet" if left is None else str(dt.timedelta(seconds=round(left))))
    table.add_row("chips failed", f"{said.chips_failed:,}")
    for kind, count in sorted(said.failures.items(), key=lambda pair: -pair[1]):
        table.add_row(f"  {kind}", f"{count:,}")
    for name, reason in list(said.reasons.items())[:5]:
        table.add_row(f"  {name}", escape(reason))
    table.add_row("held so far", f"{said.gpu_hours:,.2f} GPU-hours, {said.cpu_hours:,.2f} CPU-hours")
    if said.cost:
        table.add_row("cost so far", f"{said.cost:,.2f} {escape(said.currency)} (GPUs and cores)")
    return table


def _share(done: int, all_of_them: int) -> str:
    return f" ({done / all_of_them:.1%})" if all_of_them else ""


def _liveness(config: RunConfig, said: RunStatus) -> str:
    holder = holder_of(cube_staging_of(config))
    ago = f"{max(time.time() - said.updated, 0):,.0f} s ago"
    if said.state != "running":
        return f"none; the last one ended {ago}"
    where = f", process {holder.pid} on {holder.host}" if holder is not None else ""
    if time.time() - said.updated > 6 * PULSE_S:
        return f"no sign of life: last {ago}{where}; `difffusr run` continues where it was"
    return f"alive{where}, last sign {ago}"
