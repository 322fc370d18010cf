"""However a run ends, its log and its status say so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from configs import written

from difffusr.pipeline.config.loading import load_config
from difffusr.pipeline.ground.errors import CatalogError
from difffusr.pipeline.run import execution
from difffusr.pipeline.run.stop import Stopped
from difffusr.pipeline.storage.places import staging_of
from difffusr.pipeline.watch.pulse import read_status


class Silent:
    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def advance(self, stage: str) -> None: ...


def told(caplog: pytest.LogCaptureFixture, event: str) -> logging.LogRecord:
    (record,) = [record for record in caplog.records if getattr(record, "event", None) == event]
    return record


@pytest.mark.parametrize(
    ("trouble", "raised", "state", "message"),
    [
        (CatalogError("no scene found"), CatalogError, "failed", "ended after 0 s: failed: no scene found"),
        (ZeroDivisionError("a bug"), ZeroDivisionError, "failed", "ended after 0 s: failed: a bug"),
        (KeyboardInterrupt(), KeyboardInterrupt, "stopped", "ended after 0 s: stopped: asked to"),
        (Stopped(), Stopped, "stopped", "ended after 0 s: stopped: asked to"),
        (SystemExit(15), Stopped, "stopped", "ended after 0 s: stopped: asked to"),  # Ray's answer to SIGTERM
        (
            OSError("s3://me:hidden1@bucket/x?sig=hidden1 cannot be read"),
            OSError,
            "failed",
            "ended after 0 s: failed: s3://bucket/x cannot be read",
        ),
    ],
)
def test_a_run_that_does_not_finish_says_why(monkeypatch, caplog, tmp_path: Path, trouble, raised, state, message):
    def broken(_run: Any) -> Any:
        raise trouble

    monkeypatch.setattr(execution, "_carry_out", broken)
    config = load_config(written(tmp_path))
    with caplog.at_level("INFO", "difffusr"), pytest.raises(raised):
        execution.execute(config, Silent(), file=tmp_path / "config.yaml")
    assert f"({tmp_path}/config.yaml)" in told(caplog, "started").getMessage()
    assert told(caplog, "ended").getMessage() == message
    status = read_status(staging_of(config))
    assert status is not None
    assert status.state == state
