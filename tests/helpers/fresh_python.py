"""What a module brings with it into a process that has imported nothing else."""

from __future__ import annotations

import subprocess
import sys


def packages_with(module: str) -> set[str]:
    """The top-level packages that are loaded once a module is imported."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())
