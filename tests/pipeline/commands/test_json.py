"""`--json` gives other programs what a command shows people: to a file, or alone on standard output."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from configs import written

from difffusr.pipeline.commands import cli
from difffusr.pipeline.commands.run import Outcome
from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import ConfigError, ReadError
from difffusr.pipeline.readers.verdicts import SourceBand, SourceSeams
from difffusr.pipeline.readers.verified import keep_verdict
from difffusr.pipeline.readers.verify import Report
from difffusr.pipeline.storage.places import staging_of
from difffusr.pipeline.watch.pulse import RunStatus

STATUS = RunStatus(
    "run", "2023-06", began=time.time(), chips=100, chips_done=25, chips_failed=3, shards=4, shards_done=1, rate=0.5,
    failures={"http_404": 3}, reasons={"a": "a is not there"},
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path, period="2023-06", store={"url": "cube.zarr"})


def tell(config: Path, status: RunStatus) -> None:
    staging_of(load_config(config)).write("progress.json", json.dumps(asdict(status)).encode())


def publish(config: Path, number: int, **more: Any) -> None:
    record = {
        "number": number, "when": f"2023-07-0{number}T00:00:00+00:00", "kind": "period", "period": f"2023-0{number}",
        "zones": {"32632": 1}, "steps": {"32632": number}, "shards_written": 12, "state": "published",
        "documents": {"zarr.json": "a long text"},
    }  # fmt: skip
    file = config.parent / "cube.staging" / "history" / f"{number:06d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**record, **more}))


@pytest.fixture
def called(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["difffusr", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_status_is_json_alone_on_standard_output_and_the_table_on_standard_error(called, config):
    tell(config, replace(STATUS, updated=time.time()))
    code, out, err = called("status", config, "--json", "-")
    told = json.loads(out)
    assert code == 0
    assert "25 of 100 done" in err
    assert (told["chips_done"], told["failures"], told["seconds_left"]) == (25, {"http_404": 3}, 144)
    assert (told["driver"]["state"], told["driver"]["seconds"] < 60) == ("alive", True)


@pytest.mark.parametrize(
    ("state", "ago", "driver"),
    [("running", 0, "alive"), ("running", 600, "silent"), ("published", 600, "ended"), ("stopped", 0, "ended"),
     ("failed", 1, "ended")],
)  # fmt: skip
def test_a_file_has_the_status_and_standard_output_the_table(called, config, tmp_path, state, ago, driver):
    tell(config, replace(STATUS, state=state, updated=time.time() - ago))
    code, out, _ = called("status", config, "--json", tmp_path / "status.json")
    told = json.loads((tmp_path / "status.json").read_text())
    assert code == 0
    assert "25 of 100 done" in out
    assert (told["state"], told["driver"]["state"]) == (state, driver)
    assert (told["seconds_left"] is None) == (state != "running")


@pytest.mark.parametrize(("ahead", "words"), [(94, "ahead of"), (-94, "behind"), (0, None), (2, None)])
def test_a_clock_that_is_not_the_store_s_is_told(called, config, ahead, words):
    tell(config, replace(STATUS, updated=time.time() + ahead))
    _, out, err = called("status", config, "--json", "-")
    assert abs(json.loads(out)["driver"]["skew"] - ahead) < 3
    told = re.search(r"its clock 9\d s (.+) the store's", " ".join(err.replace("│", " ").split()))
    assert (told[1] if told else None) == words


def test_a_status_has_what_verify_found(called, config):
    tell(config, replace(STATUS, state="published", updated=time.time()))
    assert json.loads(called("status", config, "--json", "-")[1])["verified"] is None
    off = SourceBand("B02", 1.31, 0.04, False)
    found = Report(
        4, 1, [], [], [], 1.0, {}, [], [SourceSeams("dates", 96, [off, SourceBand("B03", 1.02, 0.04, True)])]
    )
    keep_verdict(staging_of(load_config(config)), found.to_dict(), 0)
    code, out, err = called("status", config, "--json", "-")
    told = json.loads(out)["verified"]
    assert code == 0
    assert (told["clean"], told["published_since"], told["sources"][0]["ok"]) == (False, False, False)
    assert told["sources"][0]["bands"][0] == {"band": "B02", "ratio": 1.31, "error": 0.04, "ok": False}
    assert "not clean (seams between dates in B02)" in " ".join(err.replace("│", " ").split())
    assert "1.02 to 1.31 over 96 borders" in err
    publish(config, 1)
    assert "published again since" in called("status", config)[1]


def test_a_history_has_what_there_is_to_tell_but_not_what_a_rollback_needs(called, config):
    for number in (1, 2):
        publish(config, number)
    code, out, err = called("history", config, "--json", "-")
    assert code == 0
    assert "2023-02" in err
    assert "a long text" not in out
    newest, oldest = json.loads(out)["publications"]
    assert (newest["number"], newest["kind"], newest["steps"]) == (2, "period", {"32632": 2})
    assert oldest["period"] == "2023-01"


def test_an_empty_history_is_an_empty_list(called, config):
    code, out, err = called("history", config, "--json", "-")
    assert (code, json.loads(out)) == (0, {"publications": []})
    assert "nothing was published yet" in err


@pytest.mark.parametrize("words", ["status", "history", "run", "plan", "verify"])
def test_a_place_that_cannot_be_written_is_one_line(called, config, tmp_path, words):
    tell(config, STATUS)
    code, _, err = called(words, config, "--json", tmp_path / "nowhere" / "file.json")
    assert code == 1
    assert err.strip().splitlines()[-1].startswith(f"error: {tmp_path}/nowhere/file.json: cannot be written")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("end", "state", "code", "why"),
    [
        (ReadError("it cannot be read"), "failed", 1, "it cannot be read"),
        (ConfigError("a: found b"), "failed", 2, "a: found b"),
        (KeyboardInterrupt(), "stopped", 130, "interrupted"),
        (typer.Exit(0), "stopped", 0, ""),
        (ZeroDivisionError(), "failed", 1, "ZeroDivisionError"),
        (RuntimeError("s3://me:hidden1@b/x"), "failed", 1, "s3://b/x"),
    ],
)
def test_a_run_without_a_result_tells_why_and_how_far_it_came(config, end, state, code, why):
    outcome = Outcome(began=time.time() - 10, config=load_config(config))
    tell(config, replace(STATUS, began=time.time()))
    told = outcome.document(end)
    assert (told["state"], told["exit_code"], told["why"]) == (state, code, why)
    assert told["chips"] == {"planned": 100, "done": 25, "failed": 3}
    assert told["failures"] == {"http_404": 3}
    assert (told["name"], told["period"]) == ("config", "2023-06")


def test_how_far_an_earlier_attempt_came_is_not_told_of_this_one(config):
    outcome = Outcome(config=load_config(config))
    tell(config, replace(STATUS, began=time.time() - 3600))
    assert "chips" not in outcome.document(ReadError("x"))
    assert "name" not in Outcome().document(ConfigError("x"))
