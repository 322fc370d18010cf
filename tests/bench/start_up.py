"""How long processes take to start, and the memory they then have: commands, and what each worker imports.

`python tests/bench/start_up.py [--json FILE] [--old FOLDER]`; FOLDER is an older checkout with modules `pipeline.*` and
an environment in `.venv`, measured in turns with this one. Each is a process of its own, five times after one that
fills the page cache. Shown are medians; the file also has the least, and seconds of core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

TURNS = 5

#: What users call; `{config}` is a configuration of a run that has not begun.
COMMANDS = (
    ("--help",),
    ("--version",),
    ("--hlep",),
    ("status", "{config}"),
    ("history", "{config}"),
    ("verify", "--help"),
)

#: Who imports what: here, and in a checkout from before the rooms.
IMPORTS = {
    "reader": ("chips.reading", "chip_stream"),
    "actor": ("chips.resolver", "chip_stream"),
    "stager": ("chips.storing", "chip_stream"),
    "shard writer": ("assemble.shards", "shard_stream"),
    "overview writer": ("assemble.overviews", "overviews"),
    "driver of a run": ("run.execution", "run"),
}

CONFIG = """
area: {bbox: [8.0, 47.0, 8.1, 47.1]}
period: {start: 2023-06-01, end: 2023-06-30}
source: {static_catalog: catalog.json}
store: {url: cube.zarr}
"""


class Checkout(NamedTuple):
    """A checkout, and how its modules are imported."""

    name: str
    python: str
    folder: Path
    package: str
    cli: str
    place: int  # in the values of `IMPORTS`
    environment: Mapping[str, str]

    def commands(self, config: Path) -> dict[str, list[str]]:
        """Command lines of what users call. They may end with any exit code."""
        call = f"import sys; from {self.package}.{self.cli} import main; sys.argv[0] = 'difffusr'; main()"
        return {
            " ".join(("difffusr", *words)).replace(" {config}", ""): [
                self.python,
                "-c",
                call,
                *(word.format(config=config) for word in words),
            ]
            for words in COMMANDS
        }

    def imports(self) -> dict[str, list[str]]:
        """Command lines that import what each process of a run imports."""
        return {
            who: [self.python, "-c", f"import {self.package}.{modules[self.place]}"] for who, modules in IMPORTS.items()
        }


class Measured(NamedTuple):
    """One process: wall clock, seconds of core, peak of resident memory in MB."""

    seconds: float
    core_seconds: float
    peak_mb: float


def measured(command: Sequence[str], checkout: Checkout, *, may_fail: bool) -> Measured:
    """Run a process to its end.

    The system counts the memory of the process that starts another to its peak: this one stays small.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=checkout.folder, env=checkout.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not may_fail:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--old", type=Path, metavar="FOLDER", help="an older checkout to measure beside this one")
    args = parser.parse_args(argv)
    here = Path(__file__).resolve().parents[2]
    checkouts = [Checkout("now", sys.executable, here, "difffusr.pipeline", "commands.cli", 0, dict(os.environ))]
    if args.old is not None:
        old = args.old.resolve()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        checkouts.insert(0, Checkout("before", f"{old}/.venv/bin/python", old, "pipeline", "cli", 1, environment))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "run.yaml"
        config.write_text(CONFIG)
        rows = measure(checkouts, config)
    Console().print(table_of(rows))
    if args.json is not None:
        from machine import machine  # imports torch: after all else

        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def measure(checkouts: Sequence[Checkout], config: Path) -> list[dict[str, Any]]:
    """A row for everything that is measured: `what`, and by checkout median and least of each figure."""
    commands, imports = [c.commands(config) for c in checkouts], [c.imports() for c in checkouts]
    return [
        *(_row(what, [of[what] for of in commands], checkouts, may_fail=True) for what in commands[0]),
        *(_row(what, [of[what] for of in imports], checkouts, may_fail=False) for what in imports[0]),
    ]


def _row(
    what: str, commands: Sequence[Sequence[str]], checkouts: Sequence[Checkout], *, may_fail: bool
) -> dict[str, Any]:
    pairs = list(zip(commands, checkouts, strict=True))
    turns = [[measured(*pair, may_fail=may_fail) for pair in pairs] for _ in range(1 + TURNS)]
    row: dict[str, Any] = {"what": what}
    for checkout, found in zip(checkouts, zip(*turns[1:], strict=True), strict=True):
        row[checkout.name] = {
            field: {"median": round(statistics.median(values), 3), "least": round(min(values), 3)}
            for field, values in zip(Measured._fields, zip(*found, strict=True), strict=True)
        }
    return row


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line a row: medians, checkouts beside each other."""
    names = [name for name in rows[0] if name != "what"]
    table = Table(title=f"start-up: medians of {TURNS}", title_justify="left", box=None)
    table.add_column("")
    for unit in ("s", "MB"):
        for name in names:
            table.add_column(f"{name}, {unit}" if len(names) > 1 else unit, justify="right")
    for row in rows:
        seconds = [f"{row[name]['seconds']['median']:.2f}" for name in names]
        table.add_row(row["what"], *seconds, *(f"{row[name]['peak_mb']['median']:.0f}" for name in names))
    return table


if __name__ == "__main__":
    main()
