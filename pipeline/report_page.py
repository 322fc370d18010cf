"""A report as one self-contained HTML page: no other file, no network, no script needed for what it says."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from kernels.bands import BANDS, GSD_M, TARGET_GSD_M, WAVELENGTH_NM
from pipeline.plan_map import zone_name
from pipeline.reader import Quality
from pipeline.report import FEW_BORDERS, SHOWN_BANDS, Crop, CubeReport, PeriodReport, Seams, ZoneFacts
from pipeline.report_map import COLOURINGS, PeriodMap, name_of, percent, words
from pipeline.survey import BandStatistics
from pipeline.verify import RESIDUAL_LIMIT, SEAM_RANGE

#: The page, with %HEAD%, %PERIODS%, … where they belong.
_TEMPLATE: Final = Path(__file__).with_name("report_page.html")

_LEGAL_NOTICE: Final = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"

#: Rows of tables that could be long: scenes, publications, failed chips.
_ROWS: Final = 30

#: What pictures are made of.
_COLOURS: Final = {"true": ("B04", "B03", "B02"), "false": ("B08", "B04", "B03")}

#: Bins of a histogram, and its size in pixels.
_BINS: Final = 60
_PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_FOOT = 220, 84, 18

_PERCENTILES: Final = (1, 5, 50, 95, 99)

#: A cell of a table that may not hold a number.
_NONE: Final = "–"


def to_page(report: CubeReport) -> str:
    """The page. The same report gives the same page."""
    maps = [_map_of(report, i) for i in range(len(report.periods))]
    rules = [drawn.rules() for drawn in maps]
    if len(report.periods) > 1:
        shown = "main:has(#p{0}:checked) .period:not(.p{0}){{display:none}}"
        rules += [shown.format(i) for i in range(len(report.periods))]
    template = _TEMPLATE.read_text(encoding="utf-8")
    styled = "\n".join(rules)
    return _filled(
        template,
        POLICY=_policy(_filled(template, RULES=styled)),
        TITLE=escape(_name(report)),
        RULES=styled,
        HEAD=_head(report),
        PERIODS="".join(_period(report, i, maps[i]) for i in range(len(report.periods))),
        CUBE=_cube(report),
    )


def _filled(template: str, **parts: str) -> str:
    """Each %NAME% replaced, in one go: what is put in is not looked at again."""
    return re.sub(r"%(" + "|".join(parts) + r")%", lambda found: parts[found[1]], template)


def _policy(template: str) -> str:
    """Nothing may be loaded; of styles and scripts only the template's own count."""

    def digest(name: str) -> str:
        inside = template.partition(f"<{name}>")[2].partition(f"</{name}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"

    allowed = f"img-src data:; style-src {digest('style')}; script-src {digest('script')}"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _name(report: CubeReport) -> str:
    return report.url.rstrip("/").rsplit("/", 1)[-1]


# ---------------------------------------------------------------------------------------------------------------------
# The cube
# ---------------------------------------------------------------------------------------------------------------------


def _head(report: CubeReport) -> str:
    zones = ", ".join(zone_name(zone.epsg) for zone in report.zones)
    model = report.attributes.get("difffusr:provenance", {}).get("model", "")
    periods = f"{len(report.labels)} period{'s' if len(report.labels) > 1 else ''}: {_listed(report.labels)}"
    facts = [report.url, periods, f"zone{'s' if len(report.zones) > 1 else ''} {zones}", *_size(report)]
    facts += [f"weights and sampling {model[:12]}"] if model else []
    attribution = f"Contains modified Copernicus Sentinel data {_span(report.years)}."
    return (
        f"<h1>{escape(_name(report))}</h1><p class=soft>{escape(str(report.attributes.get('title', '')))}</p>"
        f'<ul class="facts">{"".join(f"<li>{escape(fact)}</li>" for fact in facts)}</ul>'
        f"<p>{escape(attribution)}</p>{_untold(report.notes)}{_chooser(report)}"
    )


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) <= 4 else f"{labels[0]} to {labels[-1]}"


def _span(years: Sequence[str]) -> str:
    consecutive = len(years) > 2 and int(years[-1]) - int(years[0]) == len(years) - 1
    return f"{years[0]}–{years[-1]}" if consecutive else ", ".join(years)


def _size(report: CubeReport) -> list[str]:
    area = sum(zone.window.height * zone.window.width for zone in report.zones) * TARGET_GSD_M**2 / 1e6
    facts = [f"arrays of {sum(zone.shards for zone in report.zones):,} shards, {area:,.0f} km²"]
    return facts + ([f"{_bytes(report.stored_bytes)} stored"] if report.stored_bytes is not None else [])


def _untold(notes: Sequence[str]) -> str:
    """What is missing, said plainly."""
    if not notes:
        return ""
    return f'<div class="untold"><p>Not told here</p><ul>{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul></div>'


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
    more = (
        f"<p class=note>{left} more of the cube's periods are not on this page: --period chooses.</p>" if left else ""
    )
    return f'<fieldset class="chooser"><legend>Period</legend>{choices}</fieldset>{more}'


def _cube(report: CubeReport) -> str:
    told = report.attributes.get("difffusr:provenance", {})
    software = ", ".join(f"{name} {number}" for name, number in told.get("software", {}).items())
    facts = [
        ("Place", report.url),
        ("Source", str(report.attributes.get("source", _NONE))),
        ("Software", software or "not told by the cube"),
        ("Weights and sampling", f"sha256 {told['model']}" if told.get("model") else "not told by the cube"),
        *((f"Weights, {stage}", f"sha256 {sha256}") for stage, sha256 in told.get("weights", {}).items()),
        *((f"Sampling, {name}", str(value)) for name, value in told.get("sampling", {}).items()),
    ]
    zones = [_zone_row(zone) for zone in report.zones]
    heads = ("zone", "EPSG", "west", "south", "east", "north", "pixels of 2.5 m", "shards")
    return (
        f"<section><h2>The cube</h2>{_facts(facts)}<h3>Zones</h3>{_table(heads, zones)}"
        f"{_publications(report)}{_config('Configuration of the latest run', told.get('config'))}"
        "<h3>Licence and attribution</h3>"
        f"<p>Contains modified Copernicus Sentinel data {escape(_span(report.years))}. Whoever passes the cube on, or "
        "what is made of it, says so too. Sentinel data are free, full and open by the "
        f'<a href="{_LEGAL_NOTICE}" rel="noreferrer">Sentinel data legal notice</a>.</p></section>'
    )


def _zone_row(zone: ZoneFacts) -> tuple[str, ...]:
    size = f"{zone.window.width:,} × {zone.window.height:,}"
    return zone_name(zone.epsg), str(zone.epsg), *(f"{d:.3f}°" for d in zone.degrees), size, f"{zone.shards:,}"


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
    table = _table(heads, rows[:_ROWS], kind="words")
    return f"<h3>Publications, the newest first</h3>{table}{_rest(rows, 'publications')}"


def _config(title: str, config: Any) -> str:
    if not config:
        return ""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return f'<details><summary>{title}</summary><pre tabindex="0">{escape(text)}</pre></details>'


# ---------------------------------------------------------------------------------------------------------------------
# A period
# ---------------------------------------------------------------------------------------------------------------------


def _map_of(report: CubeReport, i: int) -> PeriodMap:
    days = {number: str(facts["datetime"])[:10] for number, facts in report.scenes.items() if facts.get("datetime")}
    return PeriodMap(f"map{i}", report.periods[i].survey.cells, days)


def _period(report: CubeReport, i: int, drawn: PeriodMap) -> str:
    period = report.periods[i]
    start, end = period.days
    return (
        f'<section class="period p{i}" aria-labelledby="h{i}"><h2 id="h{i}">{escape(period.label)}</h2>'
        f"<p class=soft>{start} to {end}</p>{_untold(period.notes)}"
        f"{_shards(period, drawn, i)}{_scenes(report, period)}{_crops(report, period, i)}"
        f"{_reflectance(period.survey.bands)}{_seams(period.seams)}{_run(period)}</section>"
    )


def _shards(period: PeriodReport, drawn: PeriodMap, i: int) -> str:
    survey = period.survey
    if not survey.cells:
        return "<h3>Shards</h3><p>Nothing is in the cube for this period.</p>"
    looked = sum(cell.looked_at for cell in survey.cells)
    how = f"all {looked / 1e6:,.1f} million pixels" if period.whole_shards else f"{looked / 1e6:,.1f} million pixels"
    if survey.seen_m > TARGET_GSD_M:
        how += f" of the overview at {survey.seen_m:g} m"
    elif not period.whole_shards:
        how += ", inner chunks spread evenly over every shard"
    held = {flag: share for flag, share in survey.flags.items() if share or flag <= Quality.FAILED}
    flags = "".join(f"<li><b>{percent(share)}</b> {words(flag)}</li>" for flag, share in held.items())
    kinds = [("date", "Date"), *((kind, COLOURINGS[kind][0]) for kind in COLOURINGS)]
    radios = _radios(f"colour{i}", kinds)
    count = f"{sum(cell.shards for cell in survey.cells):,} shards"
    return (
        f"<h3>Shards</h3><p>{count}, from {how}. No data is also what lies outside the area that was asked for.</p>"
        f'<ul class="flags">{flags}</ul><figure class="map {drawn.name}">'
        f'<fieldset class="colours"><legend>Coloured by</legend>{radios}</fieldset>'
        f'<div class="stage">{drawn.svg()}<div class="tip" aria-live="polite" hidden></div></div>'
        f"{drawn.keys()}</figure>"
        '<p class="note keys">Point at a shard, or give the map the focus and use the arrow keys.</p>'
        f"{_shard_table(drawn)}"
    )


def _shard_table(drawn: PeriodMap) -> str:
    flags = [flag for flag in Quality if any(cell.flags[flag] for cell in drawn.cells)]
    rows = [
        (name_of(cell), drawn.day(cell) or _NONE, *(percent(cell.share(flag)) for flag in flags))
        for cell in drawn.cells
    ]
    table = _table(("shard", "date", *map(words, flags)), rows)
    return f"<details><summary>The same as a table ({len(rows):,} rows)</summary>{table}</details>"


def _scenes(report: CubeReport, period: PeriodReport) -> str:
    used = sorted(period.survey.scenes.items(), key=lambda item: (-item[1], item[0]))
    if not used:
        return ""
    total = sum(pixels for _, pixels in used)
    rows = []
    for number, pixels in used:
        facts = report.scenes.get(number, {})
        name, when, tile, baseline = (str(facts.get(key, _NONE)) for key in ("id", "datetime", "tile", "baseline"))
        rows.append((name, when[:16].replace("T", " "), tile, baseline, percent(pixels / total)))
    heads = ("scene", "when (UTC)", "tile", "baseline", "share of what holds data")
    return f"<h3>Scenes</h3>{_table(heads, rows[:_ROWS], kind='words')}{_rest(rows, 'scenes')}"


def _run(period: PeriodReport) -> str:
    run, progress = period.run, period.progress
    facts: list[tuple[str, str]] = []
    if run:
        chips, shards = run.get("chips", {}), run.get("shards", {})
        facts += [
            ("Run", str(run.get("name", _NONE))),
            ("Chips", ", ".join(f"{chips.get(k, 0):,} {k}" for k in ("computed", "reused", "skipped", "failed"))),
            ("Shards", f"{shards.get('written', 0):,} written, {shards.get('kept', 0):,} kept"),
            ("Cores of the driver's machine", str(run.get("cores", _NONE))),
        ]
    if progress is not None:
        why = f": {progress.why}" if progress.why else ""
        facts += [
            ("State", f"{progress.state}{why}, {_moment(progress.updated)}"),
            (
                "Held",
                f"{progress.gpu_hours:,.2f} GPU-hours, {progress.cpu_hours:,.2f} core-hours, all attempts together",
            ),
            ("Cost", _cost(period)),
        ]
    if period.manifest:
        facts.append(("Weights and sampling", f"sha256 {period.manifest.get('model', _NONE)}"))
        facts.append(("Planned with", ", ".join(f"{k} {v}" for k, v in period.manifest.get("versions", {}).items())))
    missing = "" if run or progress else "<p>Nothing is left of the run: its folder is gone.</p>"
    return (
        f"<h3>The last run of this period</h3>{missing}{_facts(facts)}{_stages(run.get('seconds', {}))}"
        f"{_failures(run)}{_config('Configuration of this period', period.manifest.get('config'))}"
    )


def _stages(seconds: dict[str, float]) -> str:
    if not seconds:
        return ""
    order = ("plan", "chips", "shards", "publish")
    stages = sorted(seconds, key=lambda name: (order.index(name) if name in order else len(order), name))
    total = sum(seconds.values())
    rows = [(stage, f"{seconds[stage]:,.2f}", percent(seconds[stage] / total if total else 0)) for stage in stages]
    return _table(("stage", "seconds", "share"), rows, "Wall time by stage")


def _failures(run: Any) -> str:
    failed = sorted(run.get("failed", {}).items())
    if not failed:
        return ""
    table = _table(("chip", "why it failed"), [(str(k), str(v)) for k, v in failed[:_ROWS]], kind="text")
    return f"<h4>Failed chips</h4>{table}{_rest(failed, 'chips')}"


def _cost(period: PeriodReport) -> str:
    progress = period.progress
    prices = period.manifest.get("config", {}).get("costs", {}).get("prices", {})
    if progress is not None and progress.cost:
        return f"{progress.cost:,.2f} {progress.currency}, by costs.prices for GPUs and cores"
    if prices.get("gpu_hour") or prices.get("cpu_hour"):
        return f"0.00 {progress.currency if progress else ''}: nothing was computed"
    return "not known: the configuration has no prices (costs.prices.gpu_hour, costs.prices.cpu_hour)"


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def _crops(report: CubeReport, period: PeriodReport, i: int) -> str:
    if not period.crops:
        return "<h3>Before and after</h3><p>No place is clear enough to be shown.</p>"
    radios = _radios(f"bands{i}", (("true", "True colour"), ("false", "False colour (B08, B04, B03)")))
    figures = "".join(_crop(report, crop, number) for number, crop in enumerate(period.crops, 1))
    return (
        '<div class="crop-set"><h3>Before and after</h3><p>Places chosen by rule: clear, and spread over the order of '
        "contrast among the sampled chunks, from much to little. Both sides are stretched alike, from 1 % to 99 % of "
        f'the result.</p><fieldset><legend>Shown in</legend>{radios}</fieldset><div class="crops">{figures}</div></div>'
    )


def _radios(name: str, choices: Sequence[tuple[str, str]]) -> str:
    """One choice of several, the first one chosen."""
    return "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{"" if number else " checked"}>{title}</label>'
        for number, (value, title) in enumerate(choices)
    )


def _crop(report: CubeReport, crop: Crop, number: int) -> str:
    facts = report.scenes.get(crop.scene, {})
    where = f"{abs(crop.lat):.4f}° {'NS'[crop.lat < 0]}, {abs(crop.lon):.4f}° {'EW'[crop.lon < 0]}"
    side = crop.window.height * TARGET_GSD_M / 1000
    before = "10 m, as measured" if crop.measured else "2.5 m averaged to 10 m"
    caption = f"{where} · {side:g} km across · {facts.get('id', 'scene not known')}"
    frames = []
    for side_name, title, pixels in (("before", before, crop.before), ("after", "2.5 m", crop.after)):
        pictures = "".join(
            f'<img class="{kind}" alt="{escape(f"{title}, {kind} colour, place {number}")}" width="480" height="480" '
            f'src="{_picture(pixels, crop.after, kind)}">'
            for kind in _COLOURS
        )
        frames.append(f'<div class="{side_name}">{pictures}<span>{title}</span></div>')
    return (
        f'<figure class="crop"><div class="frames">{"".join(frames)}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="Place {number}: share that shows {before}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _picture(pixels: NDArray[np.float32], like: NDArray[np.float32], kind: str) -> str:
    """Three of the bands as a data URI of a WebP, stretched as the like: the 10 m side without loss."""
    order = [SHOWN_BANDS.index(band) for band in _COLOURS[kind]]
    low, high = np.percentile(like[order], (1, 99), axis=(1, 2))[..., None, None]
    bright = np.clip((pixels[order] - low) / np.maximum(high - low, 1e-4), 0, 1) ** (1 / 1.4)
    picture = Image.fromarray(np.round(255 * bright).astype(np.uint8).transpose(1, 2, 0))
    buffer = io.BytesIO()
    coarse = pixels.shape[-1] < like.shape[-1]
    picture.save(buffer, "WEBP", lossless=coarse, quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def _reflectance(bands: BandStatistics | None) -> str:
    if bands is None:
        return "<h3>Reflectance</h3><p>No pixel holds a reflectance.</p>"
    top = max(float(np.ceil(bands.percentile(99.8).max() * 10)) / 10, 0.1)
    edges = np.linspace(0, top, _BINS + 1)
    shares, middle = bands.histogram(edges), bands.percentile(50)
    figures = "".join(_histogram(i, shares[i], top, float(middle[i])) for i in range(len(BANDS)))
    columns = [bands.mean, bands.std, *(bands.percentile(p) for p in _PERCENTILES)]
    zeros, above = bands.zeros, bands.share_above(1.0)
    rows = [
        (band, f"{GSD_M[band]} m", *(f"{column[i]:.4f}" for column in columns), percent(zeros[i]), percent(above[i]))
        for i, band in enumerate(BANDS)
    ]
    percents = (f"p{p}" if p != 50 else "median" for p in _PERCENTILES)
    heads = ("band", "native", "mean", "std", *percents, "zeros", "above 1")
    return (
        f"<h3>Reflectance</h3><p>Of {bands.pixels:,} pixels of 2.5 m that hold data, in {bands.chunks:,} whole inner "
        f"chunks spread evenly over those with data. Histograms show 0 to {top:g}, each as high as its tallest bin; "
        f'dashed is the median.</p><div class="multiples">{figures}</div>{_table(heads, rows)}'
    )


def _histogram(i: int, shares: NDArray[np.float64], top: float, middle: float) -> str:
    band, floor = BANDS[i], _PLOT_HEIGHT - _PLOT_FOOT
    width, tallest = _PLOT_WIDTH / len(shares), max(float(shares.max()), 1e-12)
    steps = "".join(f"V{floor - (floor - 4) * share / tallest:.1f}h{width:.3f}" for share in shares)
    at = min(middle / top, 1) * _PLOT_WIDTH
    told = f"Histogram of {band}: median {middle:.3f}, the fullest bin holds {percent(float(shares.max()))}"
    return (
        f"<figure><figcaption><b>{band}</b> <span class=soft>{WAVELENGTH_NM[band]:.0f} nm</span></figcaption>"
        f'<svg viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" role="img" aria-label="{told}">'
        f'<path class="area" d="M0 {floor}{steps}V{floor}Z"/><path class="axis" d="M0 {floor}H{_PLOT_WIDTH}"/>'
        f'<path class="middle" d="M{at:.1f} 0V{floor}"/><text x="0" y="{_PLOT_HEIGHT - 4}">0</text>'
        f'<text x="{_PLOT_WIDTH}" y="{_PLOT_HEIGHT - 4}" text-anchor="end">{top:g}</text></svg></figure>'
    )


def _seams(seams: Seams) -> str:
    rows = []
    for i, band in enumerate(BANDS):
        measured = seams.bands[i] if seams.bands else None
        chips = _NONE if measured is None else _ratio(measured.seam_ratio, measured.seam_error)
        shards = _ratio(float(seams.shard_ratio[i]), float(seams.shard_error[i]))
        residual = _NONE if measured is None else _number(measured.residual, 5)
        good = (measured is None or measured.ok) and seams.shards_seamless(i)
        known = {chips, shards, residual} != {_NONE}
        rows.append(
            (band, chips, shards, residual, f"{RESIDUAL_LIMIT[GSD_M[band]]}", _verdict(good) if known else _NONE)
        )
    heads = ("band", "seam ratio, chips", "seam ratio, shards", "residual", "limit", "")
    return f"<h3>Seams and residual</h3><p>{escape(_explained(seams))}</p>{_table(heads, rows)}"


def _explained(seams: Seams) -> str:
    """What the figures are, and what they are from."""
    low, high = SEAM_RANGE
    chips = f"{seams.chips:,} of {seams.of_chips:,} chips" if seams.of_chips else f"{seams.chips:,} places for chips"
    few = "" if seams.borders >= FEW_BORDERS else ", too few to be judged"
    told = (
        "The seam ratio compares steps across borders with steps inside, by the cube's own pixels: 1 is perfect, and "
        f"{low:g} to {high:g}, or within two standard errors of that, is good. Measured at {chips} and at "
        f"{seams.borders:,} borders of shards{few}. "
    )
    if not seams.compared:
        return told + "The residual is not known: no chip could be compared with its scenes."
    return told + (
        "The residual is the mean absolute difference, in reflectance, between the scenes and the cube as the sensor "
        f"would see it, from {seams.compared:,} chips."
    )


class _Markup(str):
    """Text of a table that is HTML already."""


def _verdict(good: bool) -> str:
    return _Markup("<span class=ok>ok</span>" if good else "<span class=off>off</span>")


def _ratio(ratio: float, error: float) -> str:
    return f"{ratio:.3f} ± {_number(error, 3)}" if np.isfinite(ratio) else _NONE


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else _NONE


# ---------------------------------------------------------------------------------------------------------------------
# Words
# ---------------------------------------------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", kind: str = "") -> str:
    """A table; every cell is escaped, the first of a row is its heading. Wide ones scroll by themselves."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{_cell(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(caption or heads[0])} table">'
        f'<table class="{kind}">{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(text: str) -> str:
    return text if isinstance(text, _Markup) else escape(text)


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    """Names and what they are."""
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in facts)
    return f'<table class="text"><tbody>{rows}</tbody></table>' if facts else ""


def _rest(rows: Sequence[Any], what: str) -> str:
    return f"<p class=note>And {len(rows) - _ROWS:,} more {what}.</p>" if len(rows) > _ROWS else ""


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _bytes(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
