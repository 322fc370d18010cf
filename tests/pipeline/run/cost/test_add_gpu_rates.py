"""A benchmark's rows become rows of the table that ships."""

from __future__ import annotations

import json
from typing import Any

import pytest

from difffusr.pipeline.ground.errors import ConfigError
from difffusr.pipeline.run.cost.add_gpu_rates import main, markdown, rates_of
from difffusr.pipeline.run.cost.gpu_rates import GpuRates

ROW: dict[str, Any] = {
    "what": "published fast", "models": "published", "preset": "fast", "precision": "bfloat16", "execution": "fused",
    "side": 192, "batch": 8, "chips_per_s": 12.345678, "share_of_peak": 0.31,
}  # fmt: skip
MACHINE = {"gpu": "NVIDIA L40S", "torch": "2.13.0", "cuda": "13.0"}
SAID = {"measured": "2026-12-01", "version": "abc1234"}


@pytest.mark.parametrize(
    "document",
    [
        [{**ROW, **SAID, "gpu": "NVIDIA L40S"}],
        {"rows": [{**ROW, "gpu": "NVIDIA L40S"}], **SAID},
        {"machine": MACHINE, "tables": {"by batch": [ROW], "peak": [{"what": "bfloat16", "tflop_per_s": 3}]}, **SAID},
        {"gpu": "NVIDIA L40S", "rates": {"fast": {"192": ROW}}, **SAID, "measured": "2026-12-01T10:11:12+00:00"},
        {"machine": {**MACHINE, "gpu": "another"}, "rows": [{**ROW, "gpu": "NVIDIA L40S"}], **SAID},
        {"machine": MACHINE, "rows": [ROW, {**ROW, "execution": "plain"}, {**ROW, "execution": "compiled"}], **SAID},
    ],
)
def test_rows_are_found_wherever_they_are(document):
    (rate,) = rates_of(document)
    assert (rate.gpu, rate.case[1:]) == ("NVIDIA L40S", ("published", "fast", "bfloat16", "fused", 192, 8))
    assert rate.chips_per_s == 12.35
    assert rate.km2_per_s == pytest.approx(12.35 * 1.68**2, rel=1e-3)
    assert (str(rate.measured), rate.version) == ("2026-12-01", "abc1234")


def test_day_and_version_may_be_given_beside_the_file():
    (rate,) = rates_of({"machine": MACHINE, "rows": [ROW]}, "2026-12-02", "def")
    assert (str(rate.measured), rate.version, rate.source) == ("2026-12-02", "def", "one GPU, torch 2.13.0, cuda 13.0")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"machine": MACHINE, "rows": []}, "no rows of rates"),
        ("nothing", "no rows of rates"),
        ([{**ROW, **SAID, "gpu": "A", "execution": "plain"}], "no rows of rates"),
        ({"machine": {"torch": "2"}, "rows": [ROW], **SAID}, "gpu is not in the row, nor in the file"),
        ({"machine": MACHINE, "rows": [ROW], "version": "a"}, "--measured"),
        ({"machine": MACHINE, "rows": [ROW], "measured": "2026-12-01"}, "--version"),
        ({"machine": MACHINE, "rows": [{**ROW, "preset": "quick"}], **SAID}, "preset"),
        ({"machine": MACHINE, "rows": [{**ROW, "chips_per_s": 0}], **SAID}, "chips_per_s"),
        ({"machine": MACHINE, "rows": [{**ROW, "chips_per_s": "fast"}], **SAID}, "'fast'"),
        ({"machine": MACHINE, "rows": [{**ROW, "side": None}], **SAID}, "published fast bfloat16 fused None 8"),
        ({"machine": MACHINE, "rows": [ROW], **SAID, "measured": "yesterday"}, "measured"),
    ],
)
def test_what_is_missing_is_named(document, said):
    with pytest.raises(ConfigError) as caught:
        rates_of(document)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_adds_to_the_table_and_prints_readmes(tmp_path, capsys):
    table, file = tmp_path / "table.json", tmp_path / "gpu.json"
    table.write_text('{"rates": []}')
    for speed in (10.0, 20.0):
        file.write_text(json.dumps({"machine": MACHINE, "tables": {"by batch": [{**ROW, "chips_per_s": speed}]}}))
        assert main([str(file), "--table", str(table), "--measured", "2026-12-01", "--version", "1"]) == 0
    (rate,) = GpuRates.model_validate_json(table.read_text()).rates
    assert rate.chips_per_s == 20.0
    printed = capsys.readouterr().out
    assert markdown(GpuRates(rates=(rate,))) in printed
    assert "| NVIDIA L40S | published, `fast` | fused, bfloat16, batch 8 | 192 px | 20 | 56.4 | 0.00492 |" in printed


@pytest.mark.parametrize(("content", "code"), [(None, 1), ("{", 1), ("[]", 2), ("3", 2), ('{"machine": []}', 2)])
def test_a_file_that_cannot_be_used_is_one_line_and_changes_nothing(tmp_path, capsys, content, code):
    table, file = tmp_path / "table.json", tmp_path / "gpu.json"
    table.write_text('{"rates": []}')
    if content is not None:
        file.write_text(content)
    assert main([str(file), "--table", str(table)]) == code
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: ")
    assert error.count("\n") == 1
    assert table.read_text() == '{"rates": []}'
