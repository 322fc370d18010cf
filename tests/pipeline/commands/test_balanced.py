"""`plan` shows what balance does to a few scenes, and names all that are hazy."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from balanced_scenes import balanced, balanced_plan, correction, with_balance
from drawn_plans import TWO_ZONES, plan

from difffusr.pipeline.commands.balanced import show_balance


def test_every_figure_of_a_scene_is_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = show_balance(balanced_plan(TWO_ZONES), 8)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("S0")}
    figures = r"S002 \+0\.0080 \+0\.0008 \+0\.0008 1\.020–1\.031 0\.975 0\.0080 → 0\.0020 granule"
    assert re.fullmatch(figures, " ".join(lines["S002"].split()))
    assert lines["S000"].split()[-2:] == ["granule", "hazy"]
    assert "not balanced" in lines["S003"]
    assert rows is not None
    assert [row["id"] for row in rows] == ["S000", "S001", "S002", "S003"]
    json.dumps(rows, allow_nan=False)


def test_of_scenes_as_they_were_measured_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_balance(plan(TWO_ZONES), 8) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("scenes", "listed"), [(3, 8), (8, 8), (9, 8), (40, 8), (40, 2)])
def test_few_scenes_are_listed_and_json_has_all(capsys: pytest.CaptureFixture[str], scenes: int, listed: int) -> None:
    drawn = plan(TWO_ZONES, dates=scenes)
    done = {scene.id: correction(1.01) for scene in drawn.scenes}
    rows = show_balance(with_balance(drawn, balanced(done, dict.fromkeys(done, 2.0))), listed)
    out = capsys.readouterr().out
    assert len(re.findall(r"(?m)^ ?S\d\d\d ", out)) == min(scenes, listed)
    assert (f"… and {scenes - listed:,} more" in out) is (scenes > listed)
    assert rows is not None
    assert len(rows) == scenes
    assert "hazy" not in out


@pytest.mark.parametrize("used", [0, 1, 2])
def test_hazy_scenes_are_named_whether_they_are_used_or_not(capsys: pytest.CaptureFixture[str], used: int) -> None:
    made = balanced_plan(TWO_ZONES)
    assert made.balance is not None
    kinds = {**dict(made.balance.correction), "S900": correction(hazy=True), "S901": correction(hazy=True)}
    kinds["S000"] = replace(kinds["S000"], hazy=used > 0)
    kinds["S001"] = replace(kinds["S001"], hazy=used > 1)
    show_balance(with_balance(made, balanced(kinds, dict.fromkeys(kinds, 9.0))), 8)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{used + 2} scenes of 5 hazy, {used} of them used: " in said
    assert said.endswith("S900, S901")


@pytest.mark.parametrize("name", ["S[bold]one[/]", "S" + 90 * "x"])
def test_a_scene_s_row_stays_in_one_piece_and_its_name_is_text(capsys: pytest.CaptureFixture[str], name: str) -> None:
    drawn = plan(TWO_ZONES, dates=1)
    scene = replace(drawn.scenes[0], id=name)
    made = replace(drawn, scenes=(scene,), chips=replace(drawn.chips, scene_ids=(name,)))
    show_balance(with_balance(made, balanced({name: correction(0.5)}, {name: np.nan})), 8)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("S")]
    assert name in line
    assert "granule" in line
    assert "nan" not in line
