"""Makes this checkout importable where nothing is installed but torch, NumPy and Triton.

Two small packages that the networks import have a stand-in (`stand_ins`), which is found where the package is missing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def make_importable() -> None:
    """Let this process and those it starts import `difffusr` from this checkout, and what the benches share."""
    first, last = [], [str(HERE.parent), str(HERE.parents[1] / "helpers"), str(HERE / "stand_ins")]
    if not _from_here():
        first = [str(_names())]
    sys.path[:0] = first
    sys.path += [place for place in last if place not in sys.path]
    for name in [name for name in sys.modules if name.partition(".")[0] == "difffusr"]:
        del sys.modules[name]
    # The stand-ins come last in other processes, too: after what is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join([*first, *filter(None, [os.environ.get("PYTHONPATH")]), *last[:2]])
    os.environ["DIFFFUSR_STAND_INS"] = last[2]


def stand_ins_last() -> None:
    """In a process that was started by one of this script's: what is missing has its stand-in."""
    place = os.environ["DIFFFUSR_STAND_INS"]
    if place not in sys.path:
        sys.path.append(place)


def missing(packages: Iterable[str]) -> list[str]:
    """Those that are not installed."""
    return [name for name in packages if not _there(name)]


def _there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a package around it is missing, or half of it is there
        return False


def _from_here() -> bool:
    """Whether `difffusr.kernels` is that of this checkout."""
    try:
        spec = find_spec("difffusr.kernels")
    except ImportError:
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parents[1] == ROOT


def _names() -> Path:
    """A folder in which the packages have the names that they have when they are installed."""
    folder = Path(tempfile.mkdtemp(prefix="difffusr-names-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "difffusr").mkdir()
    for name in ("kernels", "pipeline"):
        (folder / "difffusr" / name).symlink_to(ROOT / name, target_is_directory=True)
    return folder
