"""Everything that a version has to show on a GPU, by one command on any machine with torch: `make gpu`.

    python tests/bench/gpu [--parts speed,start] [--seconds 480] [--out FOLDER]
    python tests/bench/gpu --dry-run         on a CPU, with small sizes: whether the script works

Nothing is fetched. Figures go to FOLDER/gpu.json as they come, part by part: a machine that is taken away leaves what
was measured. The exit code is 1 if a part failed or a comparison is out of its tolerance, 2 if there is no GPU. What is
aimed at stands beside what was measured, and is no failure where it is not reached.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tables import print_table

from gpu.bare import ROOT
from gpu.parts import Outcome, Part, Row, Setting, carry_out
from gpu.targets import targets

HERE = Path(__file__).resolve().parent

#: Seconds for everything.
SECONDS = 480.0


#: What the process of a part has in its environment in a dry run: Triton is interpreted where that takes no minutes.
DRY_ENVIRONMENT = {"equality": {"TRITON_INTERPRET": "1"}}

#: Columns that a table does not need beside the others.
_HIDDEN = ("models", "preset", "precision", "execution")


def _rows(module: str, setting: Setting) -> Iterator[Row]:
    """The rows of a part's module, which is imported in the part's process only."""
    os.environ["TRITON_CACHE_DIR"] = f"{setting.folder}/triton"  # shared by the parts, empty at the beginning
    if setting.dry:
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", **DRY_ENVIRONMENT.get(module, {})}
    yield from importlib.import_module(f"gpu.{module}").rows(setting)


def _part(name: str, title: str, seconds: float, least: float) -> Part:
    return Part(name, title, partial(_rows, name), seconds, least)


#: In the order of their importance, with the seconds that each may take.
PARTS = (
    _part("machine", "The machine, and its peaks", 60, 5),
    _part("equality", "Fused and plain networks, noise: equal", 120, 15),
    _part("speed", "Chips a second", 170, 30),
    _part("kernels", "Where the time goes", 60, 20),
    _part("conformance", "The published numbers", 60, 10),
    _part("start", "From a process's start to its first chip", 100, 25),
    _part("run", "A whole run of the demonstration's world", 150, 45),
    _part("training", "Training steps a second", 60, 15),
)


def main(argv: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """The command line; returns the exit code."""
    args = _arguments(argv, parts)
    args.out.mkdir(parents=True, exist_ok=True)
    import torch  # noqa: F401 - once, for all processes that are forked from this one

    report: dict[str, Any] = {
        "dry_run": args.dry_run, "measured": datetime.now(UTC).isoformat(timespec="seconds"), "version": _version(),
        "machine": {}, "seconds": 0.0, "parts": {}, "targets": [],
    }  # fmt: skip
    file, begun = args.out / "gpu.json", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="difffusr-gpu-") as folder:
        setting = Setting("cpu" if args.dry_run else "cuda", args.dry_run, Path(folder), args.with_run, {})
        for part in (part for part in parts if part.name in args.parts):
            outcome = _carried_out(part, setting, args.seconds - (time.monotonic() - begun), report, file)
            setting = _with(setting, part.name, outcome.rows)
            report["machine"] = {row["what"]: row["value"] for row in setting.found.get("machine", [])}
            report["targets"] = targets(setting.found)
            report["seconds"] = round(time.monotonic() - begun, 1)
            _write(report, file)
            _tell(part, outcome)
            if part.name == "machine" and outcome.state == "not here":
                return 2
    if report["targets"]:
        print_table("\nAimed at", report["targets"])
    bad = [name for name, found in report["parts"].items() if not Outcome(**found).good]
    print(f"\n{report['seconds']:.0f} s; written: {file}")
    if bad:
        print(f"not as it should be: {', '.join(bad)}")
    return 1 if bad else 0


def _arguments(argv: Sequence[str] | None, parts: Sequence[Part]) -> argparse.Namespace:
    names = [part.name for part in parts]
    parser = argparse.ArgumentParser(prog="python tests/bench/gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where gpu.json goes: beside this script, or to a new folder",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for everything (default: {SECONDS:.0f})")
    parser.add_argument("--parts", default=",".join(names), help=f"some of {','.join(names)}; all by default")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with small sizes: figures mean nothing")
    parser.add_argument("--with-run", action="store_true", help="a dry run with the whole run, which takes a minute")
    args = parser.parse_args(argv)
    args.parts = args.parts.split(",")
    if unknown := set(args.parts) - set(names):
        parser.error(f"--parts: no part is called {min(unknown)!r}; there are {', '.join(names)}")
    if args.out is None:
        args.out = Path(tempfile.mkdtemp(prefix="difffusr-gpu-")) if args.dry_run else HERE.parent
    if args.seconds <= 0:
        parser.error(f"--seconds must be above 0: found {args.seconds:g}")
    return args


def _carried_out(part: Part, setting: Setting, seconds: float, report: dict[str, Any], file: Path) -> Outcome:
    """A part's outcome; what it has found so far is written down all the time."""
    print(f"… {part.title.lower()}", flush=True)
    so_far = Outcome("failed", 0.0, "was not finished")
    report["parts"][part.name] = asdict(so_far)

    def keep(row: Row) -> None:
        report["parts"][part.name]["rows"].append(row)
        _write(report, file)

    outcome = carry_out(part, setting, seconds, keep)
    report["parts"][part.name] = asdict(outcome)
    return outcome


def _with(setting: Setting, name: str, rows: list[Row]) -> Setting:
    return Setting(setting.device, setting.dry, setting.folder, setting.with_run, {**setting.found, name: rows})


def _tell(part: Part, outcome: Outcome) -> None:
    said = f" – {outcome.state}: {outcome.why}" if outcome.state != "done" else ""
    title = f"\n{part.title} ({part.name}, {outcome.seconds:.0f} s){said}"
    if outcome.rows:
        shown = [{name: value for name, value in row.items() if name not in _HIDDEN} for row in outcome.rows]
        print_table(title, shown)
    else:
        print(title, flush=True)


def _write(report: Mapping[str, Any], file: Path) -> None:
    """Whole or not at all."""
    partial_file = file.with_name(f".{file.name}.partial")
    partial_file.write_text(json.dumps(report, indent=1, default=str) + "\n")
    os.replace(partial_file, file)


def _version() -> str:
    """The commit of this checkout, and whether it was changed since; where git does not know, the project's version."""
    try:
        asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--match="]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
