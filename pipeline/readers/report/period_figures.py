"""Pictures, histograms and figures in a period's section."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difffusr.kernels.bands import BANDS, GSD_M, SCALE, TARGET_GSD_M, WAVELENGTH_NM
from difffusr.pipeline.ground.words import careful_share_words
from difffusr.pipeline.readers.report.facts import FEW_BORDERS, SHOWN_BANDS, Crop, CubeReport, PeriodReport, Seams
from difffusr.pipeline.readers.report.markup import DASH, html_table, number_words, ratio_words, verdict_words
from difffusr.pipeline.readers.report.statistics import BandStatistics
from difffusr.pipeline.readers.verdicts import RESIDUAL_LIMIT, SEAM_RANGE, shown_kinds

#: Bands of the pictures as red, green, blue.
_COLOURS: Final = {"true": ("B04", "B03", "B02"), "false": ("B08", "B04", "B03")}

#: Bins of a histogram, and its size in pixels.
_BINS: Final = 60

_PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_FOOT = 220, 84, 18

_PERCENTILES: Final = (1, 5, 50, 95, 99)


def crops_section(report: CubeReport, period: PeriodReport, i: int) -> str:
    """Pictures before and after."""
    if not period.crops:
        return "<h3>Before and after</h3><p>No place is clear enough to show.</p>"
    radios = radio_buttons(f"bands{i}", (("true", "True colour"), ("false", "False colour (B08, B04, B03)")))
    figures = "".join(_crop(report, crop, number) for number, crop in enumerate(period.crops, 1))
    return (
        '<div class="crop-set"><h3>Before and after</h3><p>Clear places among the sampled chunks, chosen by rule '
        "from high to low contrast. Both sides have the same stretch, from 1 % to 99 % of the result.</p>"
        f'<fieldset><legend>Shown in</legend>{radios}</fieldset><div class="crops">{figures}</div></div>'
    )


def radio_buttons(name: str, choices: Sequence[tuple[str, str]]) -> str:
    """A choice of one, at first the first."""
    return "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{"" if number else " checked"}>{title}</label>'
        for number, (value, title) in enumerate(choices)
    )


def _crop(report: CubeReport, crop: Crop, number: int) -> str:
    facts = report.scenes.get(crop.scene, {})
    where = f"{abs(crop.lat):.4f}° {'NS'[crop.lat < 0]}, {abs(crop.lon):.4f}° {'EW'[crop.lon < 0]}"
    side, after = crop.window.height * crop.gsd_m / 1000, f"{crop.gsd_m:g} m"
    measured = "10 m, balanced" if facts.get("balance") else "10 m, as measured"
    before = measured if crop.measured else f"{after} averaged to {SCALE * crop.gsd_m:g} m"
    caption = f"{where} · {side:g} km across · {facts.get('id', 'scene not known')}"
    frames = []
    for side_name, title, pixels in (("before", before, crop.before), ("after", after, crop.after)):
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
    """Three bands as a data URI of a WebP, stretched as `like` is; lossless at 10 m. They have one range: one of
    its own for each would take away what is coloured, and colour what is grey."""
    order = [SHOWN_BANDS.index(band) for band in _COLOURS[kind]]
    low, high = np.percentile(like[order], (1, 99))
    bright = np.clip((pixels[order] - low) / max(high - low, 1e-4), 0, 1) ** (1 / 1.4)
    picture = Image.fromarray(np.round(255 * bright).astype(np.uint8).transpose(1, 2, 0))
    buffer = io.BytesIO()
    coarse = pixels.shape[-1] < like.shape[-1]
    picture.save(buffer, "WEBP", lossless=coarse, quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def reflectance_section(bands: BandStatistics | None, gsd_m: float = TARGET_GSD_M) -> str:
    """Histograms and a table of reflectance by band."""
    if bands is None:
        return "<h3>Reflectance</h3><p>No pixel holds a reflectance.</p>"
    top = max(float(np.ceil(bands.percentile(99.8).max() * 10)) / 10, 0.1)
    edges = np.linspace(0, top, _BINS + 1)
    shares, middle = bands.histogram(edges), bands.percentile(50)
    figures = "".join(_histogram(i, shares[i], top, float(middle[i])) for i in range(len(BANDS)))
    columns = [bands.mean, bands.std, *(bands.percentile(p) for p in _PERCENTILES)]
    zeros, above = bands.zeros, bands.share_above(1.0)
    rows = [
        (
            band,
            f"{GSD_M[band]} m",
            *(f"{column[i]:.4f}" for column in columns),
            careful_share_words(zeros[i]),
            careful_share_words(above[i]),
        )
        for i, band in enumerate(BANDS)
    ]
    percents = (f"p{p}" if p != 50 else "median" for p in _PERCENTILES)
    heads = ("band", "native", "mean", "std", *percents, "zeros", "above 1")
    return (
        f"<h3>Reflectance</h3><p>From {bands.pixels:,} pixels of {gsd_m:g} m with data, in {bands.chunks:,} whole "
        f"inner chunks spread evenly over those with data. Histograms show 0 to {top:g}, each scaled to its tallest "
        f'bin; the dashed line is the median.</p><div class="multiples">{figures}</div>{html_table(heads, rows)}'
    )


def _histogram(i: int, shares: NDArray[np.float64], top: float, middle: float) -> str:
    band, floor = BANDS[i], _PLOT_HEIGHT - _PLOT_FOOT
    width, tallest = _PLOT_WIDTH / len(shares), max(float(shares.max()), 1e-12)
    steps = "".join(f"V{floor - (floor - 4) * share / tallest:.1f}h{width:.3f}" for share in shares)
    at = min(middle / top, 1) * _PLOT_WIDTH
    label = f"Histogram of {band}: median {middle:.3f}, the fullest bin has {careful_share_words(float(shares.max()))}"
    return (
        f"<figure><figcaption><b>{band}</b> <span class=soft>{WAVELENGTH_NM[band]:.0f} nm</span></figcaption>"
        f'<svg viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" role="img" aria-label="{label}">'
        f'<path class="area" d="M0 {floor}{steps}V{floor}Z"/><path class="axis" d="M0 {floor}H{_PLOT_WIDTH}"/>'
        f'<path class="middle" d="M{at:.1f} 0V{floor}"/><text x="0" y="{_PLOT_HEIGHT - 4}">0</text>'
        f'<text x="{_PLOT_WIDTH}" y="{_PLOT_HEIGHT - 4}" text-anchor="end">{top:g}</text></svg></figure>'
    )


def seams_section(seams: Seams) -> str:
    """Seam ratios and residual by band."""
    rows = []
    for i, band in enumerate(BANDS):
        measured = seams.bands[i] if seams.bands else None
        chips = DASH if measured is None else ratio_words(measured.seam_ratio, measured.seam_error)
        shards = ratio_words(float(seams.shard_ratio[i]), float(seams.shard_error[i]))
        residual = DASH if measured is None else number_words(measured.residual, 5)
        good = (measured is None or measured.ok) and seams.shards_seamless(i)
        known = {chips, shards, residual} != {DASH}
        rows.append(
            (band, chips, shards, residual, f"{RESIDUAL_LIMIT[GSD_M[band]]}", verdict_words(good) if known else DASH)
        )
    heads = ("band", "seam ratio, chips", "seam ratio, shards", "residual", "limit", "")
    return f"<h3>Seams and residual</h3><p>{escape(_explanation(seams))}</p>{html_table(heads, rows)}{_sources(seams)}"


def _sources(seams: Seams) -> str:
    """Seams between scenes by band, a column for each kind of border."""
    shown = shown_kinds(seams.sources)
    if not shown or seams.worst_border is None:
        return "<p>No border between two scenes was measured.</p>" if seams.bands else ""
    text = (
        "Steps between squares of 30 m on both sides of a border between scenes, averaged along it, over those along "
        "lines beside it inside one scene. The ratio is above 1 where dates or granules differ in light, view or haze; "
        f"up to {SEAM_RANGE[1]:g}, or within two standard errors of that, is good."
    )
    heads = ("band", *(f"{kind.kind}, {kind.borders:,} borders" for kind in shown), "")
    rows = [
        (
            bands[0].band,
            *(ratio_words(band.ratio, band.error) for band in bands),
            verdict_words(all(b.ok for b in bands)),
        )
        for bands in zip(*(kind.bands for kind in shown), strict=True)
    ]
    worst = seams.worst_border.words
    return (
        f"<h3>Borders between scenes</h3><p>{escape(text)}</p>{html_table(heads, rows)}"
        f"<p class=note>{escape(worst[:1].upper() + worst[1:])}.</p>"
    )


def _explanation(seams: Seams) -> str:
    """What the figures mean, and what they were measured at."""
    low, high = SEAM_RANGE
    chips = f"{seams.chips:,} of {seams.of_chips:,} chips" if seams.of_chips else f"{seams.chips:,} places for chips"
    few = "" if seams.borders >= FEW_BORDERS else ", too few to judge"
    text = (
        "The seam ratio is the mean step between neighbouring pixels across borders over that inside: 1 is perfect; "
        f"{low:g} to {high:g}, or within two standard errors of that, is good. Measured at {chips} and at "
        f"{seams.borders:,} shard borders{few}. "
    )
    if not seams.compared:
        return text + "The residual is not known: no chip could be compared with its scenes."
    return text + (
        "The residual is the mean absolute difference, in reflectance, between the scenes and the cube as the sensor "
        f"would see it, measured at {seams.compared:,} chips."
    )
