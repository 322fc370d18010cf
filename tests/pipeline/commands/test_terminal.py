"""On a terminal every message stands whole above the bars; elsewhere lines of the log say what the bars would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from terminal import Screen, Shown, show

MESSAGES = [
    "scene left out: scene S2A_32TNT_20230605_0_L2A, B11: /daten/läuft nicht? #2/S2A/B11.tif cannot be opened (No such "
    "file or directory); check that the file exists and is whole, or leave the scene out",
    "short",
    "Überläufe [bold]sind[/] keine Auszeichnung: 100 % {x} \\ [0]",
    "/a/very/long/path/" + "folder/" * 40 + "B04.tif cannot be opened",
    "w " * 100 + "end",
    "two\nlines\r\nin one",
]

RUN = """
import json, logging, sys, threading, time, warnings
from difffusr.pipeline.commands.terminal import StageBars, say, set_up_logging

set_up_logging("verbose" in sys.argv, life=True)
log = logging.getLogger("difffusr.run")
stranger = logging.getLogger("ray")
messages = json.loads(sys.argv[1])
with StageBars() as bars:
    for stage in ("plan", "chips", "shards"):
        bars.start(stage, len(messages))
    for message in messages:
        threading.Thread(target=log.warning, args=("%s", message)).start()
        for stage in ("plan", "chips", "shards"):
            bars.advance(stage)
        time.sleep(0.12)  # a redraw
    log.info("info is for files", extra={"event": "stage"})
    log.info("a sign of life", extra={"event": "alive"})
    log.info("of no event")
    print("printed by somebody")
    print("(raylet) printed to standard error", file=sys.stderr)
    stranger.error("logged by somebody")
    warnings.warn("warned by somebody")
    time.sleep(0.12)
say("the result")
"""

STAGES = ["plan", "chips", "shards"]


def shown(columns: int, **options) -> Shown:
    return show([sys.executable, "-c", RUN, json.dumps(MESSAGES)], columns, **options)


def line_of(message: str) -> str:
    return " ".join(f"warning: {message}".splitlines()).rstrip()


def bars_in(lines: list[str]) -> list[str]:
    return [match[1] for line in lines if (match := re.search(r"(\w+) +[━╸╺ ]+ \d/\d", line))]


@pytest.mark.parametrize("columns", [40, 72, 80, 200])
def test_every_message_is_whole_and_above_the_bars(columns):
    ended = shown(columns)
    lines = ended.screen.lines
    assert ended.code == 0, ended.sent
    places = [lines.index(line_of(message)) for message in MESSAGES]
    assert places == sorted(places)
    bars = [number for number, line in enumerate(lines) if bars_in([line])]
    assert bars_in(lines) == STAGES, "\n".join(lines)
    assert max(places) < min(bars)
    assert bars[-1] - bars[0] == 2
    # The words of a message are not cut in what is sent either: a terminal's log can be searched for them.
    for message in MESSAGES:
        assert line_of(message).removeprefix("warning: ").rstrip() in ended.sent


def test_what_others_print_is_above_the_bars_too():
    lines = shown(80).screen.lines
    first = next(number for number, line in enumerate(lines) if bars_in([line]))
    for said in (
        "printed by somebody",
        "(raylet) printed to standard error",
        "logged by somebody",
        "UserWarning: warned by somebody",
    ):
        (place,) = [number for number, line in enumerate(lines) if said in line]
        assert place < first
    assert lines[-2:] == ["the result", ""]


def test_bars_are_drawn_again_after_every_message():
    sent = shown(80).sent
    for message in ("short", "UserWarning: warned by somebody"):
        after = Screen(80).write(sent[sent.index(message) :])
        assert bars_in(after.lines)[-3:] == STAGES


def test_a_terminal_is_spared_what_bars_show():
    sent = shown(80).sent
    assert "a sign of life" not in sent
    assert "info is for files" not in sent
    assert "of no event" not in sent


def test_whoever_asks_for_more_has_every_message_but_signs_of_life():
    sent = show([sys.executable, "-c", RUN, "[]", "verbose"]).sent
    assert "a sign of life" not in sent
    assert "info is for files" in sent
    assert "of no event" in sent


def test_without_a_terminal_each_message_is_a_line_with_its_time_and_nothing_is_drawn():
    ended = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(MESSAGES)], capture_output=True, text=True, check=True, timeout=60
    )
    own = [
        line
        for line in ended.stderr.splitlines()
        if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (warning|info): ", line)
    ]
    said = [line.partition(" ")[2] for line in own]
    assert [line.rstrip() for line in said] == [
        *map(line_of, MESSAGES),
        "info: info is for files",
        "info: a sign of life",
    ]
    assert "\x1b" not in ended.stderr + ended.stdout
    assert "━" not in ended.stderr + ended.stdout
    assert ended.stdout.splitlines() == ["printed by somebody", "the result"]


def test_with_standard_error_in_a_file_bars_are_on_the_terminal_and_messages_in_the_file(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        ended = shown(80, stderr=file.fileno())
    assert bars_in(ended.screen.lines) == STAGES
    said = (tmp_path / "log").read_text()
    assert [line_of(message) in said for message in MESSAGES] == [True] * len(MESSAGES)
    assert "a sign of life" in said
    assert "━" not in said


LOGGED = """
import logging
from difffusr.pipeline.commands.terminal import StageBars, say, set_up_logging

set_up_logging(False, life=True)
with StageBars() as bars:
    bars.start("chips", 1)
    logging.getLogger("difffusr.run").warning("nobody will read this")
    bars.advance("chips")
say("the result")
"""


@pytest.mark.parametrize("where", [">/dev/full", ">&-", ">/dev/null"])
def test_a_full_or_closed_standard_error_ends_no_run(where):
    words = ["bash", "-c", f'"$0" -c "$1" 2{where}', sys.executable, LOGGED]
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) in ((0, "the result\n"), (120, "the result\n"))  # 120: Python's own flush


STOPPED = """
import signal, sys, time
from difffusr.pipeline.commands.terminal import StageBars, set_up_logging
from difffusr.pipeline.run.stop import Stop

set_up_logging(False, life=True)
stop = Stop()
with StageBars() as bars, stop.on_signals():
    bars.start("chips", 100_000_000)
    print("ready")
    until = time.monotonic() + 20
    while not stop.requested and time.monotonic() < until:
        bars.advance("chips")  # the locks of the bars are mostly held
    time.sleep(0.3)
    print("finished what was in flight")
"""


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM"])
def test_being_asked_to_stop_is_seen_at_once_above_the_bars(how):
    asked = []

    def ask(sent: str, press: Callable[[bytes], object], process: int) -> None:
        if "ready" in sent and not asked:
            asked.append(press(b"\x03") if how == "ctrl-c" else os.kill(process, signal.SIGTERM))

    ended = show([sys.executable, "-c", STOPPED], 80, when=ask)
    lines = ended.screen.lines
    said = "warning: asked to stop: what is in flight is finished, nothing new is taken"
    whole = f"{said}; interrupt again to stop at once" if how == "ctrl-c" else said
    assert ended.code == 0, ended.sent
    assert whole in lines
    assert (
        lines.index(whole)
        < lines.index("finished what was in flight")
        < [bool(bars_in([x])) or "━" in x for x in lines].index(True)
    )
