"""A fresh interpreter: what a piece of code prints there, and which modules it loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable


def run_python(code: str) -> str:
    """What a fresh interpreter prints on its standard output; it must end well."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def loaded_by(code: str, among: Iterable[str]) -> list[str]:
    """Those of some modules that a piece of code loads."""
    return run_python(f"import sys\n{code}\nprint(*[name for name in {list(among)!r} if name in sys.modules])").split()


def packages_with(module: str) -> set[str]:
    """The top-level packages that are loaded once a module is imported."""
    return set(run_python(f"import sys, {module}\nprint(*{{name.partition('.')[0] for name in sys.modules}})").split())
