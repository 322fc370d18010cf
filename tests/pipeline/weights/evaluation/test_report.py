"""Tables of evaluations are whole on any terminal that has room for a name and a number."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from difffusr.pipeline.weights.evaluation.fusion import METRICS as FUSION
from difffusr.pipeline.weights.evaluation.report import Metric, Scores, to_terminal
from difffusr.pipeline.weights.evaluation.super_resolution import METRICS as SR

OPENSR = {
    name: Metric(name, "down", 4, "") for name in ("reflectance", "spectral", "spatial", "hallucination", "lpips")
}

NAMES = {
    "sr": ("nearest", "context encoder + bp", "diffusion sample + bp"),
    "fusion": ("bicubic", "MTF-GLP-CBD-HS, also B08", "fusion network + bp"),
    "opensr": ("nearest", "diffusion sample + bp"),
}


def scores(kind: str) -> Scores:
    metrics = {"sr": SR, "fusion": FUSION, "opensr": {**SR, **OPENSR}}[kind]
    mean = {name: {key: 10.0 + i + 0.123456 * k for k, key in enumerate(metrics)} for i, name in enumerate(NAMES[kind])}
    return Scores("All that was judged", metrics, mean, {"a": mean}, NAMES[kind][-1:], "A note of some length. " * 5)


def printed(table: Scores, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in to_terminal(table, width):
        console.print(part)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 120, 200])
@pytest.mark.parametrize("kind", NAMES)
def test_every_title_and_number_is_there_and_no_line_is_too_long(kind, width):
    table = scores(kind)
    text = printed(table, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "A note of some length." in " ".join(text.split())
    heads = [line for line in text.splitlines() if line.startswith("method")]
    assert [word for head in heads for word in head.removeprefix("method").split()] == [
        word for metric in table.metrics.values() for word in metric.title.split()
    ]
    for name, row in table.mean.items():
        lines = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        numbers = [number for line in lines for number in line.removeprefix(name).split()]
        assert numbers == [f"{row[key]:.{metric.digits}f}" for key, metric in table.metrics.items()]


@pytest.mark.parametrize("kind", ["sr", "fusion"])
def test_at_80_columns_the_usual_tables_are_in_one_piece(kind):
    assert printed(scores(kind), 80).count("method") == 1


def test_what_is_not_known_is_a_dash():
    table = scores("fusion")
    rows = {name: {key: value for key, value in row.items() if key != "grid"} for name, row in table.mean.items()}
    text = printed(replace(table, mean=rows), 80)
    assert all(line.endswith("–") for line in text.splitlines() if line.startswith(NAMES["fusion"]))
