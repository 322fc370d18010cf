"""The section of a report's page about one period."""

from __future__ import annotations

from html import escape
from typing import Any

from difffusr.pipeline.ground.pixels import Quality
from difffusr.pipeline.ground.words import careful_share_words, counted
from difffusr.pipeline.readers.report.balance_section import balance_section
from difffusr.pipeline.readers.report.cube_section import config_section, missing_notes
from difffusr.pipeline.readers.report.facts import CubeReport, PeriodReport
from difffusr.pipeline.readers.report.map import COLOURINGS, PeriodMap, flag_words, name_of
from difffusr.pipeline.readers.report.markup import DASH, MOST_ROWS, fact_list, html_table, moment_words, rest_of_rows
from difffusr.pipeline.readers.report.period_figures import (
    crops_section,
    radio_buttons,
    reflectance_section,
    seams_section,
)


def map_of(report: CubeReport, i: int) -> PeriodMap:
    """The map of the i-th period."""
    days = {number: str(facts["datetime"])[:10] for number, facts in report.scenes.items() if facts.get("datetime")}
    lattices = {zone.epsg: zone.lattice for zone in report.zones}
    return PeriodMap(f"map{i}", report.periods[i].survey.cells, days, lattices)


def period_section(report: CubeReport, i: int, drawn: PeriodMap) -> str:
    """Shards, scenes, pictures, reflectance, seams and run of the i-th period."""
    period = report.periods[i]
    start, end = period.days
    return (
        f'<section class="period p{i}" aria-labelledby="h{i}"><h2 id="h{i}">{escape(period.label)}</h2>'
        f"<p class=soft>{start} to {end}</p>{missing_notes(period.notes)}"
        f"{_shards(period, drawn, i)}{_scenes(report, period)}{balance_section(period.balance)}"
        f"{crops_section(report, period, i)}{reflectance_section(period.survey.bands, period.survey.finest_m)}"
        f"{seams_section(period.seams)}{_run(period)}</section>"
    )


def _shards(period: PeriodReport, drawn: PeriodMap, i: int) -> str:
    survey = period.survey
    if not survey.cells:
        return "<h3>Shards</h3><p>The cube has no data for this period.</p>"
    pixels = sum(cell.looked_at for cell in survey.cells)
    how = f"all {pixels / 1e6:,.1f} million pixels" if period.whole_shards else f"{pixels / 1e6:,.1f} million pixels"
    if survey.seen_m > survey.finest_m:
        how += f" of the overview at {survey.seen_m:g} m"
    elif not period.whole_shards:
        how += ", inner chunks spread evenly over every shard"
    held = {flag: share for flag, share in survey.flags.items() if share or flag <= Quality.FAILED}
    flags = "".join(f"<li><b>{careful_share_words(share)}</b> {flag_words(flag)}</li>" for flag, share in held.items())
    kinds = [("date", "Date"), *((kind, COLOURINGS[kind][0]) for kind in COLOURINGS)]
    radios = radio_buttons(f"colour{i}", kinds)
    count = counted(sum(cell.shards for cell in survey.cells), "shard")
    return (
        f"<h3>Shards</h3><p>{count}, from {how}. Pixels outside the run's area count as no data.</p>"
        f'<ul class="flags">{flags}</ul><figure class="map {drawn.name}">'
        f'<fieldset class="colours"><legend>Coloured by</legend>{radios}</fieldset>'
        f'<div class="stage">{drawn.svg()}<div class="tip" aria-live="polite" hidden></div></div>'
        f"{drawn.keys()}</figure>"
        '<p class="note keys">Point at a shard, or focus the map and use the arrow keys.</p>'
        f"{_shard_table(drawn)}"
    )


def _shard_table(drawn: PeriodMap) -> str:
    flags = [flag for flag in Quality if any(cell.flags[flag] for cell in drawn.cells)]
    rows = [
        (name_of(cell), drawn.day(cell) or DASH, *(careful_share_words(cell.share(flag)) for flag in flags))
        for cell in drawn.cells
    ]
    table = html_table(("shard", "date", *map(flag_words, flags)), rows)
    return f"<details><summary>The same as a table ({len(rows):,} rows)</summary>{table}</details>"


def _scenes(report: CubeReport, period: PeriodReport) -> str:
    used = sorted(period.survey.scenes.items(), key=lambda item: (-item[1], item[0]))
    if not used:
        return ""
    total = sum(pixels for _, pixels in used)
    rows = []
    for number, pixels in used:
        facts = report.scenes.get(number, {})
        name, when, tile, baseline = (str(facts.get(key, DASH)) for key in ("id", "datetime", "tile", "baseline"))
        rows.append((name, when[:16].replace("T", " "), tile, baseline, careful_share_words(pixels / total)))
    heads = ("scene", "when (UTC)", "tile", "baseline", "share of pixels with data")
    return f"<h3>Scenes</h3>{html_table(heads, rows[:MOST_ROWS], kind='words')}{rest_of_rows(rows, 'scenes')}"


def _run(period: PeriodReport) -> str:
    run, progress = period.run, period.progress
    facts: list[tuple[str, str]] = []
    if run:
        chips, shards = run.get("chips", {}), run.get("shards", {})
        facts += [
            ("Run", str(run.get("name", DASH))),
            ("Chips", ", ".join(f"{chips.get(k, 0):,} {k}" for k in ("computed", "reused", "skipped", "failed"))),
            ("Shards", f"{shards.get('written', 0):,} written, {shards.get('kept', 0):,} kept"),
            ("Cores of the driver's machine", str(run.get("cores", DASH))),
        ]
    if progress is not None:
        why = f": {progress.why}" if progress.why else ""
        facts += [
            ("State", f"{progress.state}{why}, {moment_words(progress.updated)}"),
            (
                "Used",
                f"{progress.gpu_hours:,.2f} GPU-hours, {progress.cpu_hours:,.2f} core-hours over all attempts",
            ),
            ("Cost", _cost(period)),
        ]
    if period.manifest:
        facts.append(("Weights and sampling", f"sha256 {period.manifest.get('model', DASH)}"))
        facts.append(("Planned with", ", ".join(f"{k} {v}" for k, v in period.manifest.get("versions", {}).items())))
    missing = "" if run or progress else "<p>The run's folder is deleted.</p>"
    return (
        f"<h3>The last run of this period</h3>{missing}{fact_list(facts)}{_stages(run.get('seconds', {}))}"
        f"{_failures(run)}{config_section('Configuration of this period', period.manifest.get('config'))}"
    )


def _stages(seconds: dict[str, float]) -> str:
    if not seconds:
        return ""
    order = ("plan", "chips", "shards", "publish")
    stages = sorted(seconds, key=lambda name: (order.index(name) if name in order else len(order), name))
    total = sum(seconds.values())
    rows = [
        (stage, f"{seconds[stage]:,.2f}", careful_share_words(seconds[stage] / total if total else 0))
        for stage in stages
    ]
    return html_table(("stage", "seconds", "share"), rows, "Wall time by stage")


def _failures(run: Any) -> str:
    failed = sorted(run.get("failed", {}).items())
    if not failed:
        return ""
    table = html_table(("chip", "why it failed"), [(str(k), str(v)) for k, v in failed[:MOST_ROWS]], kind="text")
    return f"<h4>Failed chips</h4>{table}{rest_of_rows(failed, 'chips')}"


def _cost(period: PeriodReport) -> str:
    progress = period.progress
    prices = period.manifest.get("config", {}).get("costs", {}).get("prices", {})
    if progress is not None and progress.cost:
        return f"{progress.cost:,.2f} {progress.currency}, by costs.prices for GPUs and cores"
    if prices.get("gpu_hour") or prices.get("cpu_hour"):
        return f"0.00 {progress.currency if progress else ''}: nothing was computed"
    return "not known: the configuration has no prices (costs.prices.gpu_hour, costs.prices.cpu_hour)"
