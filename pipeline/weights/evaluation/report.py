"""The results of an evaluation: a table on the terminal, JSON, and one self-contained page with crops."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text
from torch import Tensor

#: Enlargement of crops on the page: screen pixels per fine pixel.
_ZOOM: Final = 2

#: Columns of a terminal from one column of a table to the next; the narrower where the wider does not fit.
_GAPS: Final = (2, 1)


@dataclass(frozen=True)
class Metric:
    """One column: its name with unit, which direction is better ("up", "down" or ""), and how many digits to show."""

    title: str
    better: str
    digits: int
    explained: str


@dataclass(frozen=True)
class Scores:
    """One table: by method, by metric (keys of `metrics`) the mean over all samples.

    Attributes:
        ours: the methods that are judged; the rest are baselines.
        each: by sample, the same for that sample alone.
    """

    title: str
    metrics: Mapping[str, Metric]
    mean: Mapping[str, Mapping[str, float]]
    each: Mapping[str, Mapping[str, Mapping[str, float]]] = field(repr=False)
    ours: tuple[str, ...]
    note: str = ""

    def best(self, metric: str, among: Sequence[str] | None = None) -> str | None:
        """The method with the best mean of a metric; None for a metric without a better direction."""
        better = self.metrics[metric].better
        known = {
            name: row[metric]
            for name, row in self.mean.items()
            if metric in row and np.isfinite(row[metric]) and (among is None or name in among)
        }
        if not better or not known:
            return None
        return (max if better == "up" else min)(known, key=lambda name: known[name])


@dataclass(frozen=True)
class Crops:
    """Pictures of one sample side by side: uint8 (h, w, 3) by caption, all of one size."""

    title: str
    pictures: Mapping[str, NDArray[np.uint8]] = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluation found. `facts`: weights, data, settings, versions."""

    title: str
    facts: Mapping[str, Any]
    tables: tuple[Scores, ...]
    crops: tuple[Crops, ...] = field(default=(), repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)


def mean_scores(each: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean over samples, by method and metric, of what each sample has."""
    found: dict[str, dict[str, list[float]]] = {}
    for rows in each.values():
        for method, scores in rows.items():
            for metric, value in scores.items():
                found.setdefault(method, {}).setdefault(metric, []).append(value)
    return {method: {m: float(np.mean(v)) for m, v in scores.items()} for method, scores in found.items()}


def write(evaluation: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write ``evaluation.json`` and ``index.html`` into a folder, which is made; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, page = folder / "evaluation.json", folder / "index.html"
    as_json.write_text(json.dumps(to_json(evaluation), indent=1, ensure_ascii=False) + "\n")
    page.write_text(to_page(evaluation))
    return as_json, page


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain data: title, facts, tables with means and every sample, and what else was found."""
    tables = [
        {
            "title": scores.title,
            "note": scores.note,
            "judged": list(scores.ours),
            "metrics": {key: {"title": m.title, "better": m.better} for key, m in scores.metrics.items()},
            "samples": len(scores.each),
            "mean": scores.mean,
            "each": scores.each,
        }
        for scores in evaluation.tables
    ]
    return {"title": evaluation.title, "facts": dict(evaluation.facts), "tables": tables, **evaluation.extra}


def to_terminal(scores: Scores, width: int) -> list[RenderableType]:
    """The table for a terminal of so many columns: what is judged in bold, the best of a metric in green.

    Metrics that find no room are in further tables below it. The note comes last.
    """
    fits = (gap for gap in _GAPS if len(_that_fit(scores, width, gap)) == 1)
    gap = next(fits, _GAPS[0])
    parts = _that_fit(scores, width, gap)
    tables = [_terminal_table(scores, keys, gap) for keys in parts]
    tables[0].title = f"{scores.title} · {len(scores.each)} samples"
    spaced: list[RenderableType] = [item for table in tables for item in (table, "")]
    return [*spaced, Text(scores.note, style="italic dim")] if scores.note else spaced


def _that_fit(scores: Scores, width: int, gap: int) -> list[list[str]]:
    """Metrics in their order, in as many parts as a width needs; at least one in each."""
    left = max(len(name) for name in ("method", *scores.mean))
    parts: list[list[str]] = [[]]
    taken = left
    for key, metric in scores.metrics.items():
        texts = [metric.title, *(_number(row.get(key), metric.digits) for row in scores.mean.values())]
        more = max(map(len, texts)) + gap
        if parts[-1] and taken + more > width:
            parts.append([])
            taken = left
        parts[-1].append(key)
        taken += more
    return parts


def _terminal_table(scores: Scores, keys: Sequence[str], gap: int) -> RichTable:
    table = RichTable(
        title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap - 1, 0, 0)
    )
    metrics = {key: scores.metrics[key] for key in keys}
    table.add_column("method", no_wrap=True)
    for metric in metrics.values():
        table.add_column(metric.title, justify="right", no_wrap=True)
    best = {key: scores.best(key) for key in metrics}
    for method, row in scores.mean.items():
        cells = []
        for key, metric in metrics.items():
            text = _number(row.get(key), metric.digits)
            cells.append(f"[green]{text}[/]" if best[key] == method else text)
        table.add_row(f"[bold]{method}[/]" if method in scores.ours else method, *cells)
    return table


def to_markdown(scores: Scores) -> str:
    """The same as a Markdown table."""
    head = ["", *(f"{m.title} {_ARROWS[m.better]}".strip() for m in scores.metrics.values())]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * len(scores.metrics) + "|"]
    for method, row in scores.mean.items():
        name = f"**{method}**" if method in scores.ours else method
        lines.append(
            "| " + " | ".join([name, *(_number(row.get(k), m.digits) for k, m in scores.metrics.items())]) + " |"
        )
    return "\n".join(lines)


def rgb_picture(x: Tensor, low: Tensor, high: Tensor) -> NDArray[np.uint8]:
    """Reflectance (3, H, W) stretched per channel from `low` to `high` (3,) with a gamma of 1.6 → uint8 (H, W, 3)."""
    scaled = (x - low[:, None, None]) / (high - low).clamp_min(1e-4)[:, None, None]
    bright = scaled.clamp(0, 1).pow(1 / 1.6)
    return (255 * bright).round().to(torch.uint8).permute(1, 2, 0).numpy()


def stretch_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """1 % and 99 % of an image (3, H, W) by channel: two (3,)."""
    flat = x.flatten(1).float()
    return torch.quantile(flat, 0.01, dim=1), torch.quantile(flat, 0.99, dim=1)


def heat_picture(x: Tensor, high: float) -> NDArray[np.uint8]:
    """A plane (H, W) from 0 to `high` as uint8 (H, W, 3): black, violet, orange, pale yellow."""
    stops = torch.tensor([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]).float()
    place = (x / max(high, 1e-9)).clamp(0, 1) * (len(stops) - 1)
    lower = place.floor().long().clamp(max=len(stops) - 2)
    share = (place - lower)[..., None]
    return (stops[lower] * (1 - share) + stops[lower + 1] * share).round().to(torch.uint8).numpy()


def to_page(evaluation: Evaluation) -> str:
    """One self-contained HTML page."""
    facts = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in evaluation.facts.items())
    tables = "".join(_table_html(scores) for scores in evaluation.tables)
    crops = "".join(_crops_html(c) for c in evaluation.crops)
    shown = (
        f"<h2>Crops</h2><p>Same stretch in every picture of a row, taken from the truth.</p>{crops}" if crops else ""
    )
    curve = _calibration_html(evaluation.extra.get("calibration"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(evaluation.title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(evaluation.title)}</h1><dl>{facts}</dl>{tables}{curve}{shown}</main></body></html>\n"
    )


_ARROWS: Final = {"up": "↑", "down": "↓", "": ""}

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --good: #0a7d3233; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.ours td:first-child { font-weight: 650; } td.best { background: var(--good); }
.note { font-size: .85rem; opacity: .8; max-width: 75ch; }
.row { display: flex; gap: .5rem; overflow-x: auto; padding-bottom: .5rem; }
figure { margin: 0; flex: none; } figcaption { font-size: .8rem; }
img { display: block; image-rendering: pixelated; }
.bar { background: #c2410c; height: .9rem; }
"""


def _table_html(scores: Scores) -> str:
    best = {key: scores.best(key) for key in scores.metrics}
    head = "".join(
        f'<th title="{escape(m.explained)}">{escape(m.title)} {_ARROWS[m.better]}</th>' for m in scores.metrics.values()
    )
    rows = []
    for method, row in scores.mean.items():
        cells = "".join(
            f"<td{' class=best' if best[key] == method else ''}>{_number(row.get(key), m.digits)}</td>"
            for key, m in scores.metrics.items()
        )
        rows.append(f"<tr{' class=ours' if method in scores.ours else ''}><td>{escape(method)}</td>{cells}</tr>")
    explained = "; ".join(f"{m.title}: {m.explained}" for m in scores.metrics.values() if m.explained)
    return (
        f"<h2>{escape(scores.title)}</h2><p class=note>Mean over {len(scores.each)} samples. {escape(scores.note)}</p>"
        f"<div class=wide><table><thead><tr><th>method</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<p class=note>{escape(explained)}</p>"
    )


def _crops_html(crops: Crops) -> str:
    figures = "".join(
        f'<figure><img src="{_data_url(picture)}" width="{picture.shape[1] * _ZOOM}" '
        f'height="{picture.shape[0] * _ZOOM}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, picture in crops.pictures.items()
    )
    return f"<h3>{escape(crops.title)}</h3><div class=row>{figures}</div>"


def _calibration_html(calibration: Mapping[str, Any] | None) -> str:
    if not calibration:
        return ""
    top = max(max(calibration["rmse"]), 1e-9)
    rows = "".join(
        f"<tr><td>{std:.4f}</td><td>{error:.4f}</td>"
        f"<td><div class=bar style='width:{220 * error / top:.0f}px'></div></td></tr>"
        for std, error in zip(calibration["std"], calibration["rmse"], strict=True)
    )
    return (
        "<h2>Does the error grow with the spread of the samples?</h2>"
        f"<p class=note>Pixels by the standard deviation of {calibration['samples']} samples, in ten equal groups; "
        "the error is that of the samples' mean against the truth, reflectance. "
        f"Rank correlation over pixels {calibration['rank_correlation']:.2f}.</p>"
        f"<table><thead><tr><th>spread</th><th>RMSE</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _data_url(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
