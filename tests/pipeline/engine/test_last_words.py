"""A process that is ended from outside leaves a line behind; one that ends by itself does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from difffusr.pipeline.engine import last_words

_BEGIN = f"""
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("last_words", {last_words.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.last_words("error: it ended"):
    """

ENDS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "as Ray's core does": "os._exit(1)",
    "crashed": "os.abort()",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM)",
}


def said(how: str) -> str:
    return subprocess.run([sys.executable, "-c", _BEGIN + how], capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("how", ENDS)
def test_a_process_that_is_ended_has_last_words(how):
    assert said(ENDS[how]).splitlines()[-1:] == ["error: it ended"]


@pytest.mark.parametrize("how", ["pass", "raise SystemExit(3)", "raise KeyboardInterrupt", "raise ValueError"])
def test_a_process_that_ends_by_itself_has_none(how):
    assert "it ended" not in said(how)
