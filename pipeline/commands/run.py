"""The commands `difffusr run` and `difffusr status`."""

from __future__ import annotations

import datetime as dt
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from difffusr.pipeline.commands.common import (
    ConfigPath,
    OfPeriod,
    StageBars,
    Verbose,
    console,
    errors,
    load,
    say,
    table_of,
)
from difffusr.pipeline.ground.errors import DifffusrError

if TYPE_CHECKING:
    from rich.table import Table

    from difffusr.pipeline.config import RunConfig
    from difffusr.pipeline.run import RunResult
    from difffusr.pipeline.watch import RunStatus

#: Failed chips that are listed; the report in the staging folder has all.
_LISTED = 20


def run(
    config: ConfigPath,
    json_log: Annotated[
        Path | None, typer.Option("--json-log", help="Also log to this file, one JSON object a line.")
    ] = None,
    period: OfPeriod = None,
    verbose: Verbose = False,
) -> None:
    """Run a configuration from catalogue to published cube.

    Start it again after an interruption: it continues. On SIGTERM or Ctrl-C it finishes what is in flight and stops.
    Readers see the new cube only once it is complete.
    """
    settings = load(config, verbose, period)
    from difffusr.pipeline.run import Stopped, execute
    from difffusr.pipeline.watch import json_lines, secret_values

    if json_log is not None:
        lines = json_lines(json_log, f"{settings.name}, {settings.period.label}")
        lines.hide(secret_values(settings.store.storage_options))
        logging.getLogger("difffusr").addHandler(lines)
    again = _command(config, period)
    try:
        with StageBars() as progress:
            result = execute(settings, progress)
    except Stopped:
        _show_stopped(again)
        raise typer.Exit from None
    _show_result(settings, result, again)
    raise typer.Exit(result.exit_code)


def status(config: ConfigPath, period: OfPeriod = None, verbose: Verbose = False) -> None:
    """Show how far a run is. Reads its staging folder only: works on any machine that can read the store."""
    settings = load(config, verbose, period)
    from difffusr.pipeline.storage import staging_of
    from difffusr.pipeline.watch import read_status

    staging = staging_of(settings)
    said = read_status(staging)
    if said is None:
        planned = "there is only a plan" if staging.exists("plan/manifest.json") else "there is no plan yet"
        raise DifffusrError(f"{staging.url}: {planned}; `{_command(config, period)}` begins the run")
    console.print(_status_table(said, _liveness(settings, said)))


def _command(config: Path, period: str | None) -> str:
    """What to type to begin or continue a run."""
    return f"difffusr run {config}" + (f" --period {period}" if period else "")


def _show_result(config: RunConfig, result: RunResult, command: str) -> None:
    """How a run ended: a table, and what to do about chips that failed."""
    from difffusr.pipeline.storage import staging_of

    console.print(result_table(config, result))
    if result.stopped:
        _show_stopped(command)
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


def _show_stopped(command: str) -> None:
    say(f"stopped as asked, nothing is lost; resume with: {command}")


def result_table(config: RunConfig, result: RunResult) -> Table:
    """Chips, shards, seconds and where the cube is."""
    made = f", {result.overviews:,} of overviews made" if result.overviews else ""
    rows = [
        ("chips", f"{result.computed:,} computed, {result.reused:,} found done, {len(result.failed):,} failed"),
        ("shards", f"{result.written:,} written, {result.kept:,} found done{made}"),
        *(("written again", f"{shards:,}: {escape(reason)}") for reason, shards in result.reasons.items()),
        ("seconds", ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in result.seconds.items())),
        ("cube", escape(config.store.url)),
        ("readers see", _seen(result)),
    ]
    return table_of(f"{config.name} · {config.period.label}", rows)


def _seen(result: RunResult) -> str:
    if result.stopped:
        return "what they saw before"
    if result.publication is None:
        return "what they saw before: nothing has changed"
    return f"publication {result.publication.number} ({result.publication.kind}, {result.publication.where})"


def _status_table(said: RunStatus, liveness: str) -> Table:
    """State, rate, what is left, failures by reason, GPU-hours and cost."""
    rows = [
        ("state", escape(f"{said.state}{f': {said.why}' if said.why else ''}")),
        ("driver", escape(liveness)),
        ("chips", f"{said.chips_done:,} of {said.chips:,} done{_share(said.chips_done, said.chips)}"),
        ("shards", f"{said.shards_done:,} of {said.shards:,} written{_share(said.shards_done, said.shards)}"),
    ]
    if said.state == "running":
        left = said.seconds_left
        rows += [
            ("rate", f"{said.rate * 3600:,.0f} chips an hour" if said.rate else "not known yet"),
            ("left", "not known yet" if left is None else str(dt.timedelta(seconds=round(left)))),
        ]
    rows.append(("chips failed", f"{said.chips_failed:,}"))
    rows += [(f"  {kind}", f"{count:,}") for kind, count in sorted(said.failures.items(), key=lambda pair: -pair[1])]
    rows += [(f"  {name}", escape(reason)) for name, reason in list(said.reasons.items())[:5]]
    rows.append(("held so far", f"{said.gpu_hours:,.2f} GPU-hours, {said.cpu_hours:,.2f} CPU-hours"))
    if said.cost:
        rows.append(("cost so far", f"{said.cost:,.2f} {escape(said.currency)} (GPUs and cores)"))
    return table_of(f"{said.run} · {said.period}", rows)


def _share(done: int, all_of_them: int) -> str:
    return f" ({done / all_of_them:.1%})" if all_of_them else ""


def _liveness(config: RunConfig, said: RunStatus) -> str:
    from difffusr.pipeline.storage import cube_staging_of, holder_of
    from difffusr.pipeline.watch import PULSE_S

    holder = holder_of(cube_staging_of(config))
    ago = f"{max(time.time() - said.updated, 0):,.0f} s ago"
    if said.state != "running":
        return f"none; the last one ended {ago}"
    where = f", process {holder.pid} on {holder.host}" if holder is not None else ""
    if time.time() - said.updated > 6 * PULSE_S:
        return f"no sign of life: last {ago}{where}; `difffusr run` continues where it was"
    return f"alive{where}, last sign {ago}"
