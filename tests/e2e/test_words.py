"""What a run says: whole on a terminal, as lines and JSON elsewhere, and as a result that other programs read."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal import show

from difffusr.pipeline.scenes.synthetic.world import DemoWorld
from difffusr.pipeline.watch import life

COMMAND = str(Path(sys.executable).with_name("difffusr"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def lacking(world: DemoWorld, configure, tmp_path) -> Path:
    """A configuration whose clearest scene lacks a file; its folder's name has spaces and umlauts."""
    archive = tmp_path / "Archiv für alle Fälle"
    shutil.copytree(world.catalog.parent, archive)
    scene = sorted(archive.glob("items/S2A*"))[0]
    (scene / "B11.tif").unlink()
    return configure(source={"static_catalog": str(archive / world.catalog.name)})


@pytest.mark.slow  # the terminal itself is tested in tests/pipeline/commands/test_terminal.py, a stop in test_failures
def test_a_run_on_a_terminal_says_everything_whole_and_hears_ctrl_c(lacking, tmp_path):
    pressed: list[object] = []

    def press(sent: str, keys: Callable[[bytes], object], _process: int) -> None:
        if not pressed and "B11.tif" in sent:
            pressed.append(keys(b"\x03"))

    log, result = tmp_path / "log.jsonl", tmp_path / "result.json"
    ended = show([COMMAND, "run", str(lacking), "--json-log", str(log), "--json", str(result)], 80, when=press)
    lines = ended.screen.lines
    assert ended.code == 0, ended.sent
    assert "Traceback" not in ended.sent
    warned = [line["message"] for line in lines_of(log) if line["level"] == "warning"]
    assert any("B11.tif" in message for message in warned)
    asked = "asked to stop: what is in flight is finished, nothing new is taken; interrupt again to stop at once"
    assert asked in warned
    first_bar = next(number for number, line in enumerate(lines) if re.search(r"plan +━+ 1/1 ", line))
    for message in warned:
        assert lines.index(f"warning: {message}") < first_bar
    others = [line for line in lines[:first_bar] if line and not line.startswith("warning: ")]
    assert not others, others
    assert any(line.startswith("stopped as asked, nothing is lost; resume with: difffusr run") for line in lines)
    told = json.loads(result.read_text())
    assert (told["state"], told["exit_code"], told["publication"]) == ("stopped", 0, None)
    assert told["chips"]["planned"] == 12


def test_without_a_terminal_a_run_tells_its_life(difffusr, lacking, tmp_path, monkeypatch):
    monkeypatch.setattr(life, "HEARTBEAT_S", 0.5)
    log, result = tmp_path / "log.jsonl", tmp_path / "result.json"
    ended = difffusr("run", lacking, "--json-log", log, "--json", result)
    assert ended.code in (0, 3), ended.err
    by_event: dict[str, list[dict[str, Any]]] = {}
    for line in lines_of(log):
        by_event.setdefault(line.get("event", "other"), []).append(line)
    (started,), (cluster,), (planned,) = (by_event[event] for event in ("started", "cluster", "planned"))
    assert started["config"] == str(lacking)
    assert {"difffusr", "ray", "torch", "python"} <= set(started["versions"])
    assert started["store"].endswith("run.zarr")
    assert started["staging"].endswith("run.staging")
    assert (cluster["nodes"], cluster["cpus"]) == (1, 2)
    assert (planned["chips"], planned["chips_todo"]) == (12, 12)
    stages = ["plan", "chips", "shards", "overviews", "publish"]
    for event in ("stage_begun", "stage_done"):  # chips and shards again where a scene was set aside
        assert list(dict.fromkeys(line["stage"] for line in by_event[event])) == stages
    assert all(line["seconds"] >= 0 for line in by_event["stage_done"])
    assert len({line["shard"] for line in by_event["shard"]}) == planned["shards"]
    (published,), (over,) = by_event["published"], by_event["ended"]
    assert (published["publication"], published["kind"]) == (1, "period")
    assert (over["state"], over["exit_code"], over["publication"]) == ("published", ended.code, 1)
    assert over["failed"] == sum(over["failures"].values())
    alive = [line for line in by_event["alive"] if "done" in line]
    assert alive
    assert {"done", "total", "rate", "eta_seconds", "failed"} <= set(alive[-1])
    # The same is on standard error, a line each, but nothing of every single scene.
    for line in lines_of(log):
        assert (line["message"] in ended.err) == (line["level"] == "warning" or "event" in line)
    assert re.search(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info: ended after .+: published", ended.err)
    assert "━" not in ended.out + ended.err
    told = json.loads(result.read_text())
    assert told["publication"]["number"] == 1
    assert told["seconds"].keys() == set(stages)
    seen = json.loads(difffusr("history", lacking, "--json", "-").out)
    assert seen == {"publications": [{**told["publication"], "state": "published", "current": True}]}
    status = json.loads(difffusr("status", lacking, "--json", "-").out)
    assert (status["state"], status["driver"]["state"], status["chips"]) == ("published", "ended", 12)
    plan = json.loads(difffusr("plan", lacking, "--json", "-").out)
    assert plan["plan"]["chips"] == 12


@pytest.mark.parametrize(
    ("sections", "code", "why", "named"),
    [
        ({"source": {"items": "nowhere.json"}}, 1, "nowhere.json", True),
        ({"period": {"start": "2023-06-31", "end": "2023-07-31"}}, 2, "period.start: found '2023-06-31'", False),
        ({"period": {"start": "2003-06-01", "end": "2003-06-30"}}, 1, "no scene found", True),
    ],
)
@pytest.mark.parametrize("place", ["result.json", "-"])
def test_a_run_that_fails_says_so_in_its_result(
    command, configure, tmp_path, monkeypatch, sections, code, why, named, place
):
    monkeypatch.chdir(tmp_path)
    ended = command("run", configure(**sections), "--json", place, "--json-log", "log.jsonl")
    told = json.loads(ended.out if place == "-" else (tmp_path / place).read_text())
    assert (ended.code, told["exit_code"], told["state"]) == (code, code, "failed")
    assert why in told["why"]
    assert ("period" in told) == named
    assert f"error: {told['why']}" in ended.err
    if named:
        (over,) = [line for line in lines_of(tmp_path / "log.jsonl") if line.get("event") == "ended"]
        assert (over["state"], over["why"]) == ("failed", told["why"])


def test_a_result_that_cannot_be_written_is_known_before_any_work(command, configure, tmp_path):
    ended = command("run", configure(), "--json", tmp_path / "nowhere" / "result.json")
    assert ended.code == 1
    assert "no such folder" in ended.err
    assert not (tmp_path / "run.staging").exists()


def test_an_error_on_a_terminal_is_whole_below_the_bars(configure, tmp_path):
    missing = tmp_path / ("ein Ordner mit Überlänge " * 4).strip() / "items.json"
    ended = show([COMMAND, "run", str(configure(source={"items": str(missing)}))], columns=40)
    (line,) = [line for line in ended.screen.lines if line.startswith("error: ")]
    assert ended.code == 1
    assert str(missing) in line
    assert line in ended.sent.replace("\x1b[1;31m", "").replace("\x1b[0m", "")
    assert "Traceback" not in ended.sent
    bar = next(number for number, row in enumerate(ended.screen.lines) if "plan  " in row)
    assert ended.screen.lines.index(line) > bar
