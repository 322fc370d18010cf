"""A command that is asked to end does, whatever it waits for, and leaves no handler behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from difffusr.pipeline.commands import cli
from difffusr.pipeline.ground.errors import ConfigError

_PROGRAM = """
import os, signal, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from difffusr.pipeline.commands import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs beside itself

def waits() -> None:
    threading.Timer(0.2, print, ["ready"], {{"flush": True}}).start()
    {waits}

cli.app.command("waits")(waits)
cli._PATIENCE_S = 0.5
sys.argv = ["difffusr", "waits"]
cli.main()
"""

#: What a command may be doing.
WAITS = {
    "asleep": "time.sleep(60)",
    "at work": "while True: sum(range(1000))",
    "for a lock": "threading.Event().wait()",
    "for another program": "subprocess.run(['sleep', '60'], stderr=subprocess.DEVNULL)",
    "for threads that nothing interrupts": (
        "with ThreadPoolExecutor() as pool: list(pool.map(time.sleep, [60, 60, 60]))"
    ),
    "for a thread at its end": "threading.Thread(target=time.sleep, args=(60,)).start(); time.sleep(60)",
    "for itself while it cleans up": "\n    try: time.sleep(60)\n    finally: time.sleep(60)",
    "while Ray starts": "time.sleep(0.3); sys.exit(signal.SIGTERM)",
}


@pytest.mark.parametrize("what", WAITS)
def test_a_command_that_gets_sigterm_ends_soon_with_one_line_at_most(what):
    command = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(waits=WAITS[what])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    asked = time.monotonic()
    command.terminate()
    _, said = command.communicate(timeout=60)
    assert command.returncode == 143
    assert time.monotonic() - asked < 10
    assert said in ("asked to stop; start the same command again to continue\n", "")
    assert said or "threads" in what or "cleans up" in what  # those are ended without another word


def test_ctrl_c_ends_a_command_with_a_line():
    program = _PROGRAM.format(waits="os.kill(os.getpid(), signal.SIGINT); time.sleep(60)")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "interrupted; start the same command again to continue\n")


def fails() -> None:
    raise ConfigError("a: found b")


def is_asked_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("does", "code"),
    [(lambda: None, 0), (fails, 2), (is_asked_to_end, 143), (lambda: sys.exit(3), 3), (lambda: sys.exit(15), 143)],
)
def test_who_handled_sigterm_before_a_command_does_so_after_it(does: Callable[[], None], code: int, monkeypatch):
    monkeypatch.setattr(cli, "app", does)
    monkeypatch.setattr(cli, "_PATIENCE_S", 3600)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        here = signal.getsignal(signal.SIGTERM)
        if code:
            with pytest.raises(SystemExit) as end:
                cli.main()
            assert end.value.code == code
        else:
            cli.main()
        assert signal.getsignal(signal.SIGTERM) is here
    finally:
        signal.signal(signal.SIGTERM, before)
