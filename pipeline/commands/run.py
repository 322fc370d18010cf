"""The commands `difffusr run` and `difffusr status`."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from difffusr.pipeline.commands.common import (
    AsJson,
    ConfigPath,
    OfDerived,
    OfPeriod,
    Verbose,
    json_place,
    load,
    run_command,
    table_of,
)
from difffusr.pipeline.commands.extras import check_masks, check_workers
from difffusr.pipeline.commands.terminal import StageBars, console, errors, say
from difffusr.pipeline.ground.errors import EXIT_FAILED, ConfigError, DifffusrError
from difffusr.pipeline.ground.urls import one_line, shown_url

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
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write how the run ended as JSON to this file; - prints JSON alone."
        ),
    ] = None,
    period: OfPeriod = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Stop in order before this time, such as 2026-12-01T06:00Z, or within 6h; the file's otherwise."
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Run a configuration from catalogue to published cube.

    Start it again after an interruption: it continues. What is missing from the cube or was found damaged by `difffusr
    verify` is written again. On SIGTERM or Ctrl-C it finishes what is in flight and stops, and so it does before its
    deadline, and before this machine is taken away.
    Readers see the new cube only once it is complete. A terminal shows bars; elsewhere the log tells, line by line, how
    the run gets on.
    """
    with json_place(json_path) as write:
        outcome = Outcome()
        try:
            _run(outcome, config, json_log, period, deadline, verbose)
        except BaseException as error:
            write(outcome.document(error))
            raise


def _run(
    outcome: Outcome, config: Path, json_log: Path | None, period: str | None, deadline: str | None, verbose: bool
) -> None:
    settings = load(config, verbose, period, life=True, deadline=deadline)
    outcome.config = settings = _with_time(settings)
    check_masks(settings)
    check_workers("run")
    from difffusr.pipeline.run import Stopped, execute
    from difffusr.pipeline.watch import json_lines, secret_values

    if json_log is not None:
        lines = json_lines(json_log, f"{settings.name}, {settings.period.label}")
        lines.hide(secret_values(settings.store.storage_options))
        lines.hide([settings.notify.url or ""])
        logging.getLogger("difffusr").addHandler(lines)
    again = run_command(config, period)
    try:
        with StageBars() as progress:
            outcome.result = result = execute(settings, progress, file=config)
    except Stopped as stopped:
        show_stopped(again, str(stopped))
        raise typer.Exit from None
    show_result(settings, result, again)
    _stay(result)
    code = result.exit_code
    for one in () if result.stopped else settings.derived:
        outcome.derived.append(one.name)
        code = max(code, _derive(outcome, settings.of_derived(one.name), again))
    raise typer.Exit(code)


def _with_time(settings: RunConfig) -> RunConfig:
    """The configuration with its deadline as a time: cubes that are made of this one have the same.

    Raises:
        ConfigError: it has passed.
    """
    from difffusr.pipeline.config import deadline_at

    if settings.deadline is None:
        return settings
    now = dt.datetime.now(dt.UTC)
    ends = deadline_at(settings.deadline, now)
    if ends <= now:
        raise ConfigError(f"deadline: {settings.deadline} has passed; choose a later one")
    return settings.model_copy(update={"deadline": ends.isoformat()})


#: Seconds after which a machine that was to be taken away counts as one that stays.
_STAYS_S = 60.0


def _stay(result: RunResult) -> None:
    """Where the machine is about to go, wait for that: who tries again what has failed would begin here, in vain."""
    if result.stopped and result.machine_ends:
        time.sleep(max(0.0, min(result.machine_ends - time.time(), 600.0) + _STAYS_S))


def _derive(outcome: Outcome, settings: RunConfig, again: str) -> int:
    """Make a cube of one CRS from the run's; returns the exit code."""
    from difffusr.pipeline.run import Stopped, execute

    try:
        with StageBars() as progress:
            result = execute(settings, progress)
    except Stopped as stopped:
        show_stopped(again, str(stopped))
        return 0
    outcome.derived[-1] = {"name": outcome.derived[-1], "state": result.state, **result.counts()}
    show_result(settings, result, again)
    return result.exit_code


def status(
    config: ConfigPath,
    json_path: AsJson = None,
    period: OfPeriod = None,
    derived: OfDerived = None,
    verbose: Verbose = False,
) -> None:
    """Show how far a run is, and what `verify` last found.

    Reads its staging folder only: works on any machine that can read the store.
    """
    settings = load(config, verbose, period, derived)
    from difffusr.pipeline.readers import read_verdict
    from difffusr.pipeline.storage import cube_staging_of, staging_of
    from difffusr.pipeline.watch import read_status

    with json_place(json_path) as write:
        staging = staging_of(settings)
        said = read_status(staging)
        if said is None:
            planned = "there is only a plan" if staging.exists("plan/manifest.json") else "there is no plan yet"
            raise DifffusrError(f"{staging.url}: {planned}; `{run_command(config, period)}` begins the run")
        driver = Driver.of(settings, said)
        verified = read_verdict(staging, cube_staging_of(settings))
        console.print(_status_table(said, driver.words, verified))
        left = said.seconds_left if said.state == "running" else None
        write({**asdict(said), "seconds_left": left, "driver": asdict(driver), "verified": verified})


@dataclass
class Outcome:
    """What is known of a run, for `--json`.

    Attributes:
        began: seconds since 1970.
        config: None until it is read.
        result: None where the run did not come to one.
        derived: how each cube made of it came out; the name alone where it failed.
    """

    began: float = field(default_factory=time.time)
    config: RunConfig | None = None
    result: RunResult | None = None
    derived: list[Any] = field(default_factory=list)

    def document(self, end: BaseException) -> dict[str, Any]:
        """How the run ended: `state`, `exit_code`, `why`, and what it came to; without a result, as far as its last
        status says.

        Args:
            end: what the command ends with, which may be its regular exit.
        """
        stopped = isinstance(end, KeyboardInterrupt)
        code = 130 if stopped else getattr(end, "exit_code", EXIT_FAILED)
        regular = isinstance(end, typer.Exit)
        document: dict[str, Any] = {
            "state": "stopped" if stopped or regular else "failed",
            "exit_code": code,
            "why": "" if regular else "interrupted" if stopped else one_line(end, None) or type(end).__name__,
        }
        if self.config is not None:
            store, staging = shown_url(self.config.store.url), shown_url(self.config.store.staging)
            named = {"name": self.config.name, "period": self.config.period.label}
            document |= {**named, "store": store, "staging": staging}
        if self.derived:
            document["derived"] = self.derived
        return document | (self._progress() if self.result is None else _facts(self.result))

    def _progress(self) -> dict[str, Any]:
        """How far the run came, from its status: that of this attempt, not of an earlier one."""
        from difffusr.pipeline.storage import staging_of
        from difffusr.pipeline.watch import read_status

        try:
            said = read_status(staging_of(self.config)) if self.config is not None else None
        except DifffusrError:
            said = None
        if said is None or said.began < self.began:
            return {}
        return {
            "chips": {"planned": said.chips, "done": said.chips_done, "failed": said.chips_failed},
            "shards": {"planned": said.shards, "done": said.shards_done},
            "failed": dict(said.reasons),
            "failures": dict(said.failures),
        }


def _facts(result: RunResult) -> dict[str, Any]:
    """A result for JSON."""
    from difffusr.pipeline.watch import failures_by_kind

    counts = result.counts()
    counts["chips"]["planned"], counts["shards"]["planned"] = len(result.plan.chips), len(result.plan.shards)
    return {
        **counts,
        "state": result.state,
        "why": result.why,
        "failed": result.failed,
        "failures": failures_by_kind(result.failed),
        "rewritten": result.reasons,
        "publication": None if result.publication is None else result.publication.facts(),
    }


def show_result(config: RunConfig, result: RunResult, command: str) -> None:
    """How a run ended: a table, and what to do about chips that failed."""
    from difffusr.pipeline.storage import staging_of

    console.print(result_table(config, result))
    if result.stopped:
        show_stopped(command, result.why)
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


def show_stopped(command: str, why: str) -> None:
    """Why a run was stopped, as `RunResult.why` has it, and how to resume it."""
    from difffusr.pipeline.run import ASKED

    said = "as asked" if why == ASKED else why
    say(f"stopped {said}, nothing is lost; resume with: {command}")


def result_table(config: RunConfig, result: RunResult) -> Table:
    """Chips, shards, seconds and where the cube is."""
    made = f", {result.overviews:,} of overviews made" if result.overviews else ""
    rows = [
        *((("chips", _chips(result)),) if len(result.plan.chips) else ()),
        ("shards", f"{result.written:,} written, {result.kept:,} found done{made}"),
        *((("mended", _some(result.mended)),) if result.mended else ()),
        *(("written again", f"{shards:,}: {escape(reason)}") for reason, shards in result.reasons.items()),
        ("seconds", ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in result.seconds.items())),
        ("cube", escape(config.store.url)),
        ("readers see", _seen(result)),
    ]
    return table_of(f"{config.name} · {config.period.label}", rows)


def _chips(result: RunResult) -> str:
    return f"{result.computed:,} computed, {result.reused:,} found done, {len(result.failed):,} failed"


def _some(names: Sequence[str]) -> str:
    return f"{len(names):,}: {escape(', '.join(names[:3]))}{' …' if len(names) > 3 else ''}"


def _seen(result: RunResult) -> str:
    if result.stopped:
        return "what they saw before"
    if result.publication is None:
        return f"what they saw before: {'it is whole again' if result.mended else 'nothing has changed'}"
    return f"publication {result.publication.number} ({result.publication.kind}, {result.publication.where})"


def _status_table(said: RunStatus, liveness: str, verified: dict[str, Any] | None) -> Table:
    """State, rate, what is left, failures by reason, GPU-hours and cost, what `verify` last found."""
    from difffusr.pipeline.readers import seam_words, verdict_words

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
    if said.preempted:
        rows.append(("preempted", f"{said.preempted:,} actors, {said.given_back:,} chips given back"))
    rows.append(("held so far", f"{said.gpu_hours:,.2f} GPU-hours, {said.cpu_hours:,.2f} CPU-hours"))
    if said.cost:
        rows.append(("cost so far", f"{said.cost:,.2f} {escape(said.currency)} (GPUs and cores)"))
    if verified is not None:
        rows.append(("verified", escape(verdict_words(verified))))
        rows += [(f"  {kind}", words) for kind, words in seam_words(verified)]
    return table_of(f"{said.run} · {said.period}", rows)


def _share(done: int, all_of_them: int) -> str:
    return f" ({done / all_of_them:.1%})" if all_of_them else ""


#: Seconds by which two clocks may differ without a word: writing takes its time, and S3 tells whole seconds.
_SKEW_S = 5.0


@dataclass(frozen=True)
class Driver:
    """Who works on a run.

    Attributes:
        state: `alive`, `silent` (no sign of life for a minute) or `ended`.
        seconds: since its last sign of life.
        host, process: where it is; empty and 0 if nobody holds the store.
        skew: seconds by which its clock is ahead of the store's; None if that is not known.
    """

    state: str
    seconds: float
    host: str = ""
    process: int = 0
    skew: float | None = None

    @classmethod
    def of(cls, config: RunConfig, said: RunStatus) -> Driver:
        """The driver that wrote a status."""
        from difffusr.pipeline.storage import cube_staging_of, holder_of, staging_of
        from difffusr.pipeline.watch import PULSE_S, clock_skew

        seconds = max(time.time() - said.updated, 0)
        state = "ended" if said.state != "running" else "silent" if seconds > 6 * PULSE_S else "alive"
        holder = None if state == "ended" else holder_of(cube_staging_of(config))
        host, process = ("", 0) if holder is None else (holder.host, holder.pid)
        return cls(state, seconds, host, process, clock_skew(staging_of(config)))

    @property
    def words(self) -> str:
        """For the table."""
        ago = f"{self.seconds:,.0f} s ago"
        where = f", process {self.process} on {self.host}" if self.host else ""
        if self.skew is not None and abs(self.skew) > _SKEW_S:
            where += f", its clock {abs(self.skew):,.0f} s {'ahead of' if self.skew > 0 else 'behind'} the store's"
        if self.state == "ended":
            return f"none; the last one ended {ago}"
        if self.state == "silent":
            return f"no sign of life: last {ago}{where}; `difffusr run` continues where it was"
        return f"alive{where}, last sign {ago}"
