"""The command line in a process of its own: what it says, what it has imported, how much memory it took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from beside import ROOT

_PROGRAM = """
import atexit, json, os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["MISSING"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())

def report():
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    found = {"modules": sorted(sys.modules), "peak_kb": int(peak)}
    with open(os.environ["REPORT"], "w") as file:
        json.dump(found, file)

atexit.register(report)
sys.argv[0] = "difffusr"
from difffusr.pipeline.commands.cli import main
main()
"""


@dataclass(frozen=True)
class Called:
    """How a command ended.

    Attributes:
        code, out, err: exit code and what it printed.
        modules: every module that it had imported.
        peak_mb: the most memory that it had resident, 10^6 bytes.
    """

    code: int
    out: str
    err: str
    modules: frozenset[str]
    peak_mb: float


def call(folder: Path, *words: str | Path, missing: Iterable[str] = ()) -> Called:
    """Call `difffusr` with these words.

    Args:
        folder: of the test's own: the working directory, and where the project's metadata are written to.
        missing: packages that cannot be imported, as if they were not installed.
    """
    report = folder / "report.json"
    path = os.pathsep.join([str(write_metadata(folder / "site")), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "MISSING": ",".join(missing), "REPORT": str(report)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = json.loads(report.read_text())
    return Called(
        ended.returncode, ended.stdout, ended.stderr, frozenset(found["modules"]), found["peak_kb"] * 1024 / 1e6
    )


def write_metadata(folder: Path) -> Path:
    """A folder for Python's path with the metadata that an installation of pyproject.toml has; the folder itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {wanted}" for wanted in project["dependencies"]]
    for extra, packages in project["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        for package in packages:
            name, _, condition = (part.strip() for part in package.partition(";"))
            both = f'({condition}) and extra == "{extra}"' if condition else f'extra == "{extra}"'
            lines.append(f"Requires-Dist: {name}; {both}")
    place = folder / f"{project['name']}-{project['version']}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text("\n".join(lines) + "\n")
    return folder
