"""Prints the lower bound of every dependency in pyproject.toml as a pip constraint: `make lowest` installs these."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

#: Tools that judge the code: their own age says nothing about the code's needs.
TOOLS = {"import-linter", "mypy", "pandas-stubs", "pip-audit", "pre-commit", "ruff", "types-PyYAML", "uv"}


def lowest() -> dict[str, str]:
    """Lower bound by package name; extras of one package agree on it."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    bounds: dict[str, str] = {}
    for text in [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)", text)
        if match and match[1] not in TOOLS and bounds.setdefault(match[1], match[2]) != match[2]:
            raise SystemExit(f"{match[1]}: two lower bounds, {bounds[match[1]]} and {match[2]}")
    return bounds


if __name__ == "__main__":
    for name, bound in sorted(lowest().items()):
        print(f"{name}=={bound}")
