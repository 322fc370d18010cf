"""What the drills found: one report, a section for each drill, which the drill alone writes anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from beside import ROOT

REPORT = ROOT / "tests" / "drills" / "report.md"

_TITLE = """# Drills

What `make drills` did and how it ended, section by section as each drill was last run. Same: every object of a plain
store byte for byte; of an Icechunk repository what readers see, value by value, and the history.
"""

#: In this order.
SECTIONS = (
    "Kills by request",
    "Kills in whole runs",
    "Kills of continents",
    "Zombies and races",
    "Runs over a faulty store",
    "Kills by time",
    "Preemption",
    "Preempted machines",
)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_section(title: str, text: str, report: Path = REPORT) -> None:
    """Replace a section of the report."""
    parts = re.split(r"^## (.+)\n", report.read_text() if report.exists() else "", flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True)) | {title: text}
    told = [f"## {name}\n\n{sections[name].strip()}\n" for name in SECTIONS if name in sections]
    report.write_text("\n".join([_TITLE, *told]))
