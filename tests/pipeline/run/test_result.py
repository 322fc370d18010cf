"""How a run ended: its exit code, its seconds, its report."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from difffusr.pipeline.run.result import RunResult, write_report
from difffusr.pipeline.storage.objects import Storage

PLAN: Any = SimpleNamespace(chips=range(4))


def test_missing_chips_end_a_run_with_3_unless_it_was_asked_to_stop():
    failed = {"32632/0_0": "no such file"}
    assert RunResult(PLAN).exit_code == 0
    assert RunResult(PLAN, failed=failed).exit_code == 3
    assert RunResult(PLAN, failed=failed, stopped=True).exit_code == 0


def test_the_report_has_counts_reasons_and_seconds_by_stage(tmp_path):
    config = SimpleNamespace(name="june", period=SimpleNamespace(label="2024-06"))
    run: Any = SimpleNamespace(config=config, staging=Storage(str(tmp_path)))
    result = RunResult(PLAN, computed=3, reused=1, failed={"32632/0_0": "no such file"})
    with result.timed("chips"):
        pass
    write_report(run, result, {"32632/1_1": "another scene"})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["chips"] == {"computed": 3, "skipped": 0, "reused": 1, "failed": 1}
    assert report["failed"] == {"32632/0_0": "no such file"}
    assert report["rewritten"] == {"32632/1_1": "another scene"}
    assert list(report["seconds"]) == ["chips"]
    assert 0 <= report["seconds"]["chips"] < 5
