"""The head of a report's page, and its section about the cube."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

import yaml

from difffusr.pipeline.ground.urls import bare_href
from difffusr.pipeline.ground.words import counted, size_words
from difffusr.pipeline.readers.report.facts import CubeReport, ZoneFacts
from difffusr.pipeline.readers.report.markup import DASH, MOST_ROWS, fact_list, html_table, rest_of_rows

_LEGAL_NOTICE: Final = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"


def cube_name(report: CubeReport) -> str:
    """The last part of the cube's URL."""
    return report.url.rstrip("/").rsplit("/", 1)[-1]


def page_head(report: CubeReport) -> str:
    """Title, facts, attribution, what is missing, and the choice of period."""
    zones, what = ", ".join(zone.name for zone in report.zones), "CRS" if _is_derived(report) else "zone"
    model = report.attributes.get("difffusr:provenance", {}).get("model", "")
    periods = f"{counted(len(report.labels), 'period')}: {_listed(report.labels)}"
    facts = [report.url, periods, f"{what}{'s' if len(report.zones) > 1 else ''} {zones}", *_size(report)]
    facts += [f"weights and sampling {model[:12]}"] if model else []
    attribution = f"Contains modified Copernicus Sentinel data {_span(report.years)}."
    return (
        f"<h1>{escape(cube_name(report))}</h1><p class=soft>{escape(str(report.attributes.get('title', '')))}</p>"
        f'<ul class="facts">{"".join(f"<li>{escape(fact)}</li>" for fact in facts)}</ul>'
        f"<p>{escape(attribution)}</p>{missing_notes(report.notes)}{_chooser(report)}"
    )


def _is_derived(report: CubeReport) -> bool:
    return any(zone.of_crs is not None for zone in report.zones)


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 4 else f"{labels[0]} to {labels[-1]}"


def _span(years: Sequence[str]) -> str:
    consecutive = len(years) > 2 and int(years[-1]) - int(years[0]) == len(years) - 1
    return f"{years[0]}–{years[-1]}" if consecutive else ", ".join(years)


def _size(report: CubeReport) -> list[str]:
    area = sum(zone.area_km2 for zone in report.zones)
    facts = [f"arrays of {sum(zone.shards for zone in report.zones):,} shards, {area:,.0f} km²"]
    return facts + ([f"{size_words(report.stored_bytes)} stored"] if report.stored_bytes is not None else [])


def missing_notes(notes: Sequence[str]) -> str:
    """What is missing from the report, and why."""
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<div class="missing"><p>Missing from this report</p><ul>{items}</ul></div>'


def _chooser(report: CubeReport) -> str:
    if len(report.periods) < 2:
        return ""
    last = len(report.periods) - 1
    choices = "".join(
        f'<label><input type="radio" name="period" id="p{i}"{" checked" if i == last else ""}>{escape(period.label)}'
        "</label>"
        for i, period in enumerate(report.periods)
    )
    left = len(report.labels) - len(report.periods)
    more = f"<p class=note>Not on this page: {counted(left, 'more period')}; choose with --period.</p>" if left else ""
    return f'<fieldset class="chooser"><legend>Period</legend>{choices}</fieldset>{more}'


def cube_section(report: CubeReport) -> str:
    """Where the cube is, what made it, its zones and publications, its licence."""
    provenance = report.attributes.get("difffusr:provenance", {})
    derived = provenance.get("derived_from") or {}
    software = ", ".join(f"{name} {number}" for name, number in provenance.get("software", {}).items())
    facts = [
        ("URL", report.url),
        ("Source", str(report.attributes.get("source", DASH))),
        *([("Made of the UTM zones of", bare_href(str(derived["cube"])))] if derived.get("cube") else []),
        ("Software", software or "not given by the cube"),
        (
            "Weights and sampling",
            f"sha256 {provenance['model']}" if provenance.get("model") else "not given by the cube",
        ),
        *((f"Weights, {stage}", f"sha256 {sha256}") for stage, sha256 in provenance.get("weights", {}).items()),
        *((f"Sampling, {name}", str(value)) for name, value in provenance.get("sampling", {}).items()),
    ]
    zones = [_zone_row(zone) for zone in report.zones]
    what, title = ("CRS", "Coordinate reference system") if _is_derived(report) else ("zone", "Zones")
    pixels = f"pixels of {report.zones[0].pixel_words}"
    heads = (what, "EPSG", "west", "south", "east", "north", pixels, "shards")
    return (
        f"<section><h2>The cube</h2>{fact_list(facts)}<h3>{title}</h3>{html_table(heads, zones)}"
        f"{_publications(report)}{config_section('Configuration of the latest run', provenance.get('config'))}"
        "<h3>Licence and attribution</h3>"
        f"<p>Contains modified Copernicus Sentinel data {escape(_span(report.years))}. Repeat this when you pass on "
        "the cube or anything made from it. Sentinel data are free, full and open under the "
        f'<a href="{_LEGAL_NOTICE}" rel="noreferrer">Sentinel data legal notice</a>.</p></section>'
    )


def _zone_row(zone: ZoneFacts) -> tuple[str, ...]:
    size = f"{zone.window.width:,} × {zone.window.height:,}"
    code = zone.lattice.crs.removeprefix("EPSG:") if zone.lattice.crs.startswith("EPSG:") else DASH
    return zone.name, code, *(f"{d:.3f}°" for d in zone.degrees), size, f"{zone.shards:,}"


def _publications(report: CubeReport) -> str:
    if not report.publications:
        return ""
    kinds = {"period": "new period", "revision": "revision"}
    rows = [
        (
            str(record.number),
            record.when[:16].replace("T", " "),
            kinds.get(record.kind, f"rollback to {record.restores}"),
            record.period,
            f"{record.shards_written:,}",
            "readers see it" if record.current else "deleted" if record.gone else record.where,
        )
        for record in report.publications
    ]
    heads = ("no.", "when (UTC)", "what", "period", "shards written", "")
    table = html_table(heads, rows[:MOST_ROWS], kind="words")
    return f"<h3>Publications, newest first</h3>{table}{rest_of_rows(rows, 'publications')}"


def config_section(title: str, config: Any) -> str:
    """A configuration as YAML, folded."""
    if not config:
        return ""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return f'<details><summary>{title}</summary><pre tabindex="0">{escape(text)}</pre></details>'
